"""The command line: every verb of `stages` as a subcommand, and tools for a person who wants to see something.

The process prints the URI that a verb made on standard output, and everything else on standard error.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

import tyro

from previts import paper, stages, storage, workers
from previts.addresses import check_method, finished
from previts.errors import InputError
from previts.experiment import Experiment
from previts.fields import flatten
from previts.profiles import PROFILES
from previts.storage import plain

# What object stores raise; the types share no ancestor with each other or with OSError.
STORE_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("aiohttp", "ClientError"),
)
# The optional packages that previts imports, by the extra that installs them.
EXTRAS = {
    "data": ("av", "cv2", "filterpy", "PIL", "scipy", "threadpoolctl"),
    "train": (
        "jinja2",
        "markupsafe",
        "matplotlib",
        "mlflow",
        "pycocotools",
        "sklearn",
        "sqlalchemy",
        "torch",
        "torchvision",
    ),
    "launch": ("kubernetes", "psutil", "torchx", "yaml"),
    "pipelines": ("kfp",),
}
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
        set = [*set, f"saliency.method={storage.read_manifest(model).info['method'] if model else 'rbd'}"]
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
    from previts.index import read_quality
    from previts.quality import describe, to_csv

    if worst < 0:
        raise InputError(f"worst must be 0 or more, got {worst}")
    videos = read_quality(index)
    if out:
        storage.write_bytes(out, to_csv(videos).encode())
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
    from previts import challenge

    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    return challenge.write(images, masks, out, seed)


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


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with a readable error where its input, installation or environment is at fault."""
    over = threading.Event()
    if engine := os.environ.get(workers.STARTED_BY, ""):
        threading.Thread(target=workers.end_with, args=(int(engine), over), daemon=True).start()
    try:
        yield
    except (InputError, OSError, FloatingPointError) as error:
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        rank = os.environ.get("RANK", "")  # of a process that torchrun started
        print(f"previts: process {rank}: {text}" if rank else f"previts: {text}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:  # a fault of ours, or a broken installation
            raise
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        print(
            f"previts: the package {package} is not installed; this command needs the extra {extra!r}: "
            f"pip install 'previts[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)
    except _store_errors() as error:
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        print(
            f"previts: the object store did not serve ({type(error).__name__}: {error}); look at its address, at this "
            "machine's credentials for it and at the network",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("previts: stopped; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        over.set()


def _store_errors() -> tuple[type[Exception], ...]:
    """Return the error types of the object stores that were used at all."""
    return tuple(getattr(sys.modules[module], name) for module, name in STORE_ERRORS if module in sys.modules)
