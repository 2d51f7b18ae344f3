"""A corpus of a few crawls of local videos of a second, and the outputs of the verbs up to the index."""

from collections.abc import Sequence
from pathlib import Path

from small_verbs import SMALL
from source_videos import numbered, write_source

from previts import stages
from previts.runs import steps

ROW = "1/vgg/moco"


def write_videos(folder: Path, names: Sequence[str]) -> None:
    """Write videos whose frames all differ."""
    for number, name in enumerate(names):
        frames = [numbered(100 * number + frame) for frame in range(8 + number)]
        write_source(str(folder / f"{name}.mp4"), frames, fps=8)


def write_crawl(folder: Path, crawl: str, **videos: str) -> str:
    """Write a crawl to the folder of crawls: the name of the file of each video by its id."""
    path = folder / crawl
    lines = [f"{name},videos/{file}.mp4,{file[0]}" for name, file in videos.items()]
    path.write_text("\n".join(["video_id,url,label", *lines]) + "\n")
    return str(path)


def two_crawls(folder: Path) -> str:
    """Make two crawls of two videos each, and return their folder."""
    crawls = folder / "crawls"
    (crawls / "videos").mkdir(parents=True)
    write_videos(crawls / "videos", ["a1", "a2", "b1", "b2"])
    write_crawl(crawls, "1.csv", a1="a1", a2="a2")
    write_crawl(crawls, "2.csv", b1="b1", b2="b2")
    return str(crawls)


def perceive(crawl: str, root: str, *more: str) -> dict[str, str]:
    """Run the verbs up to the index, and return the outputs."""
    settings = [*SMALL, *more]
    at = {"videos": stages.download(steps.list_crawls(crawl, root), root, "demo", settings)}
    at["model"] = stages.fit_saliency(at["videos"], root, "demo", settings)
    at["saliency"] = stages.saliency(at["videos"], at["model"], root, "demo", settings)
    at["tubes"] = stages.track(at["videos"], at["saliency"], root, "demo", settings)
    at["index"] = stages.index(at["videos"], at["tubes"], root, "demo", settings)
    return at
