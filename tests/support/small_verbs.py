"""The settings of small calls of the verbs, and the files of a root."""

from pathlib import Path

# Characters that have a meaning in URLs, shells, patterns, SQL or Markdown. Every verb must take them literally.
ODD = "odd ?#%20&'\"é;*[x]::y"

SMALL = [
    "video.videos_per_shard=3",
    "saliency.method=rbd",
    "saliency.every=4",
    "augment.size=64",
    "objective.queue_size=16",
    "objective.batch_norm_groups=1",
    "optim.batch_size=4",
    "optim.epochs=1",
    "evaluation.crop=64",
    "evaluation.resize=72",
    "evaluation.linear.epochs=3",
]


# A program that runs the verbs up to the index: its arguments are the crawl, the root and settings.
PERCEIVE = """
import sys
from previts.processes import command_folder
from previts import stages
from previts.runs import steps
crawl, root, *settings = sys.argv[1:]
with command_folder.temporary_folder():
    videos = stages.download(steps.list_crawls(crawl, root), root, "demo", settings)
    model = stages.fit_saliency(videos, root, "demo", settings)
    tubes = stages.track(videos, stages.saliency(videos, model, root, "demo", settings), root, "demo", settings)
    stages.index(videos, tubes, root, "demo", settings)
"""


def snapshot(root: str) -> dict[str, int]:
    """Return the time of the last change of every file under a root, in nanoseconds."""
    return {str(path): path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()}
