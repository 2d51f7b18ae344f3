"""The command line: every verb of `stages` as a subcommand, and tools for a person who wants to see something.

The process prints the URI that a verb made on standard output, and everything else on standard error.
"""

from collections.abc import Callable, Sequence

import tyro

from previts import stages
from previts.config import paper
from previts.config.experiment import Experiment
from previts.config.fields import flatten
from previts.config.profiles import PROFILES
from previts.errors import InputError
from previts.processes.exits import readable_errors
from previts.stages.checks import check_method
from previts.stages.outputs import finished
from previts.storage import files, folders
from previts.storage.fingerprints import plain

FLOW = """\
PreViTS: visual representations from unlabelled video, pretrained with tracking supervision.

The verbs in order; each prints the URI that the next one takes, and does nothing where its result is already there:

  download      crawl of videos           -> videos of one size and rate, in shards
  fit_saliency  videos                    -> saliency model
  saliency      videos, model             -> salient regions on every k-th frame
  track         videos, regions           -> one tube a video: the object, followed
  index         videos, tubes             -> which frames may be sampled
  pretrain      row of a table, index     -> checkpoint
  evaluate      checkpoint, labelled set  -> numbers
  report        numbers                   -> a page to read

  show          what the tables, rows and profiles are; one row in full
  world         a small synthetic world to try all of it on
  look          one video, any file or a stored one: its saliency and its tube as pictures
  quality       an index: how good its tubes look without labels, and what a filter would keep
  variants      images with masks: objects and backgrounds taken apart, as the Backgrounds Challenge does

The whole flow in one command: `python -m pipelines run-local --help`.
Set PREVITS_TRACEBACK=1 to see where an error came from.
"""


def show(row: tyro.conf.Positional[str] = "", profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Print the rows of the paper's tables, or one row in full.

    Args:
        row: Name of a row, such as 1/vgg/previts; nothing lists all.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as sampling.min_overlap=0.2.
    """
    if not row:
        lines = [f"{'row':<22} {'what it is':<42} {'evaluated on':<24} paper's voc07 mAP"]
        for item in paper.ROWS.values():
            reported = item.reported.get("voc07/map", "-")
            lines.append(f"{item.name:<22} {item.title:<42} {' '.join(item.benchmarks):<24} {reported}")
        lines.append(f"\ntables: {' '.join(paper.TABLES)} (a table's name stands for all its rows)")
        lines += [f"profile {item.name}: {item.title}" for item in PROFILES.values()]
        return "\n".join(lines)
    found = paper.find_row(row)
    plan = plain(paper.resolve(row, profile, set))
    lines = [f"{found.name}: {found.title} (profile {profile})", f"evaluated on: {', '.join(found.benchmarks)}"]
    lines += [
        f"  {path:<34} {'(empty)' if value == '' else value}"
        for path, value in flatten({**plan["experiment"], "evaluation": plan["evaluation"]}).items()
    ]
    lines.append("reported by the paper:")
    lines += [f"  {metric:<34} {value}" for metric, value in found.reported.items()] or ["  nothing"]
    return "\n".join(lines)


def look(
    video: tyro.conf.Positional[str],
    index: str = "",
    out: str = "",
    model: str = "",
    profile: str = "paper",
    set: Sequence[str] = (),
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    frames: int = 8,
) -> str:
    """Show what saliency and tracking make of one video: a contact sheet and the video with its tube.

    Args:
        video: Path or URI of any video; with --index the id of a stored one, which is shown as it was stored.
        index: URI that `index` returned.
        out: Folder for sheet.png and overlay.mp4; look-NAME by default.
        model: URI that `fit_saliency` returned; without it a handcrafted prior, rbd if --set names no other.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as saliency.method=mc track.max_age=5.
        start_seconds: Where to begin in the file.
        end_seconds: Where to stop; half a minute after the start by default.
        frames: Rows of the contact sheet.
    """
    from previts.look import folder_for, look_at_file, look_at_stored

    if frames < 1:
        raise InputError(f"frames must be 1 or more, got {frames}")
    out = out or folder_for(video)
    if not index:
        experiment = _with_saliency(model, profile, set)
        return look_at_file(video, out, experiment, model, start_seconds, end_seconds, frames)
    if model or set or start_seconds is not None or end_seconds is not None:
        raise InputError(
            "with --index a video is shown as it was stored; to try another --model, --set or window, give its file"
        )
    return look_at_stored(index, video, out, frames)


def _with_saliency(model: str, profile: str, set: Sequence[str]) -> Experiment:
    """Return the experiment with a model's method, or without a model the prior that was chosen, else rbd."""
    if model:
        finished(model, "saliency_model")
    if not any(item.startswith("saliency.method=") for item in set):
        set = [*set, f"saliency.method={folders.read_manifest(model).info['method'] if model else 'rbd'}"]
    experiment = paper.resolve(None, profile, set).experiment
    method = experiment.saliency.method
    if model:
        check_method(method, model)
    elif method in ("deepusps", "supervised"):
        raise InputError(f"saliency.method={method} needs --model, a URI that `previts fit_saliency` printed")
    return experiment


def quality(index: tyro.conf.Positional[str], out: str = "", worst: int = 5) -> str:
    """Show how good the tubes of a crawl look without labels, and what each threshold of a filter would keep.

    Args:
        index: URI that `index` returned.
        out: A CSV file for the numbers of every video.
        worst: How many of the weakest videos to name.
    """
    from previts.corpus.index_table import read_quality
    from previts.corpus.quality import describe, to_csv

    if worst < 0:
        raise InputError(f"worst must be 0 or more, got {worst}")
    videos = read_quality(index)
    if out:
        files.write_bytes(out, to_csv(videos).encode())
    return describe(videos, worst) + (f"\n\nEvery video: {out}" if out else "")


def variants(
    images: tyro.conf.Positional[str], masks: tyro.conf.Positional[str], out: tyro.conf.Positional[str], seed: int = 0
) -> str:
    """Take objects and backgrounds of images apart, as the Backgrounds Challenge does: eight variants of each image.

    Args:
        images: Folder of <class>/<image>.
        masks: Folder of <class>/<image>.png, of the images' sizes; what is not 0 is object.
        out: Folder for <variant>/val/<class>/<image>, fg_mask/val and manifest.csv.
        seed: Decides which backgrounds the mixed variants take.
    """
    from previts.evals.backgrounds import variant_folders

    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    return variant_folders.write(images, masks, out, seed)


VERBS: dict[str, Callable[..., str]] = {
    "download": stages.download,
    "fit_saliency": stages.fit_saliency,
    "saliency": stages.saliency,
    "track": stages.track,
    "index": stages.index,
    "pretrain": stages.pretrain,
    "evaluate": stages.evaluate,
    "report": stages.report,
}
TOOLS: dict[str, Callable[..., str]] = {
    "show": show,
    "world": stages.world,
    "look": look,
    "quality": quality,
    "variants": variants,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; what a person can mend is told on one screen, without a traceback."""
    with readable_errors():
        commands = {**VERBS, **TOOLS}
        print(tyro.extras.subcommand_cli_from_dict(commands, prog="previts", description=FLOW, args=arguments))
