"""The command line: a subcommand for each verb of `stages`, and tools that show data and results.

A verb prints the URI of its result on standard output. All other messages go to standard error.
"""

import functools
import inspect
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from previts import stages
from previts.config import paper
from previts.config.experiment import Experiment
from previts.config.fields import flatten, unknown_name
from previts.config.profiles import PROFILES, benchmarks_of
from previts.errors import InputError
from previts.processes import machine
from previts.processes.exits import readable_errors
from previts.stages.checks import check_method
from previts.stages.outputs import finished
from previts.storage import files, folders, holders
from previts.storage.fingerprints import plain

HELP = """\
usage: previts COMMAND [OPTIONS]

PreViTS learns visual representations from unlabelled video with tracking supervision.
`previts COMMAND --help` prints the options of a command.

Verbs, in the order of a run:

  download      list of videos            -> videos of one size and frame rate, in shards
  fit_saliency  videos                    -> saliency model
  saliency      videos, model             -> salient regions on every k-th frame
  track         videos, regions           -> one tube a video: the mask of its object through time
  index         videos, tubes             -> table of the frames that may be sampled
  pretrain      row of a table, index     -> checkpoint of an encoder
  evaluate      checkpoint, dataset       -> numbers of one benchmark
  report        numbers                   -> page that compares the rows

Each verb prints the URI of its result, which is an input of later verbs.
A verb does nothing if its result already exists. If another process works on it, a verb waits.
A row is a line of a table of the paper, with all its settings.
`previts show ROW` prints the settings, and `--set section.field=value` changes them.

Tools:

  show          list the rows, tables and profiles, or print all settings of one row
  world         make a small synthetic world: videos and labelled datasets to try the pipeline on
  look          draw the saliency and the tube of one video
  quality       print statistics of the tubes of an index; needs no labels
  compare       print the numbers of rows in MLflow, with intervals over seeds
  why           print what a result was made from: settings, inputs, crawls and code
  withdraw      leave videos out from now on, list what rests on them, and delete their bytes
  variants      make the eight variants of the Backgrounds Challenge from images and masks

To run all verbs with one command, see `python -m pipelines run-local --help`.
With PREVITS_TRACEBACK=1, an error also prints its traceback.
"""

TAKE_OVER_HELP = "Stop another process that works on the same result, instead of waiting for it."


def show(
    row: Annotated[Positional[str], arg(metavar="[ROW]")] = "",
    profile: str = "paper",
    set: Sequence[str] = (),
    cost: Annotated[bool, FlagCreatePairsOff] = False,
) -> str:
    """List the rows of the paper's tables, or print all settings of one row.

    Args:
        row: Name of a row, such as 1/vgg/previts. Without it, all rows are listed.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as sampling.min_overlap=0.2.
        cost: Also print the operations and the GPU memory of a training step. Takes a minute, and needs no GPU.
    """
    if not row:
        if cost:
            raise InputError("--cost needs a row, such as 1/vgg/previts")
        lines = [f"{'row':<22} {'title':<42} {'voc07 mAP (paper)':<17} benchmarks"]
        for item in paper.ROWS.values():
            reported = item.reported.get("voc07/map", "-")
            lines.append(f"{item.name:<22} {item.title:<42} {reported:<17} {' '.join(item.benchmarks)}")
        lines.append(f"\ntables: {' '.join(paper.TABLES)} (the name of a table stands for all its rows)")
        lines.append(f"groups: {' '.join(paper.GROUPS)} (the name of a group stands for several tables)")
        lines += [f"profile {item.name}: {item.title}" for item in PROFILES.values()]
        return "\n".join(lines)
    found = paper.find_row(row)
    resolved = paper.resolve(row, profile, set)
    plan = plain(resolved)
    lines = [
        f"{found.name}: {found.title} (profile {profile})",
        f"benchmarks: {', '.join(benchmarks_of(found.benchmarks, profile))}",
    ]
    lines += [
        f"  {path:<34} {'(empty)' if value == '' else value}"
        for path, value in flatten({**plan["experiment"], "evaluation": plan["evaluation"]}).items()
    ]
    lines.append("reported by the paper:")
    lines += [f"  {metric:<34} {value}" for metric, value in found.reported.items()] or ["  nothing"]
    if cost:
        from previts.pretraining.dry_run import describe

        lines.append(describe(resolved.experiment))
    return "\n".join(lines)


def look(
    video: Annotated[Positional[str], arg(metavar="VIDEO")],
    index: str = "",
    out: str = "",
    model: str = "",
    profile: str = "paper",
    set: Sequence[str] = (),
    start_seconds: Annotated[float | None, arg(metavar="SECONDS")] = None,
    end_seconds: Annotated[float | None, arg(metavar="SECONDS")] = None,
    frames: int = 8,
) -> str:
    """Draw the saliency and the tube of one video: a contact sheet, and the video with its tube.

    Args:
        video: Path or URI of any video. With --index, the id of a video of that index, shown as it was stored.
        index: URI that `index` returned.
        out: Folder for sheet.png and overlay.mp4. The default is look-NAME.
        model: URI that `fit_saliency` returned. Without it, a handcrafted prior is used: rbd, or the one in --set.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as saliency.method=mc track.max_age=5.
        start_seconds: Start of the part to show, in seconds. Without it, the start of the file.
        end_seconds: End of the part to show, in seconds. Without it, 30 seconds after its start.
        frames: Number of frames on the contact sheet, one in each row.
    """
    from previts.look import folder_for, look_at_file, look_at_stored

    if frames < 1:
        raise InputError(f"--frames must be 1 or more, got {frames}")
    out = out or folder_for(video)
    if not index:
        experiment = _with_saliency(model, profile, set)
        return look_at_file(video, out, experiment, model, start=start_seconds, end=end_seconds, frames=frames)
    if model or set or start_seconds is not None or end_seconds is not None:
        raise InputError(
            "with --index a video is shown as it was stored: leave out --model, --set, --start-seconds and "
            "--end-seconds, or give the file of the video instead of --index"
        )
    return look_at_stored(index, video, out, frames)


def _with_saliency(model: str, profile: str, set: Sequence[str]) -> Experiment:
    """Return the experiment with the method of a model, or without a model with the chosen prior, rbd by default."""
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


def quality(index: Annotated[Positional[str], arg(metavar="INDEX")], out: str = "", worst: int = 5) -> str:
    """Print statistics of the tubes of an index, and how many videos each filter threshold would keep; needs no labels.

    Args:
        index: URI that `index` returned.
        out: CSV file to write the numbers of every video to.
        worst: How many of the weakest videos to list.
    """
    from previts.corpus.index_table import read_quality
    from previts.corpus.quality import describe, to_csv

    if worst < 0:
        raise InputError(f"--worst must be 0 or more, got {worst}")
    videos = read_quality(index)
    if out:
        files.write_bytes(out, to_csv(videos).encode())
    return describe(videos, worst) + (f"\n\nEvery video: {out}" if out else "")


def why(uri: Annotated[Positional[str], arg(metavar="URI")], json: Annotated[bool, FlagCreatePairsOff] = False) -> str:
    """Print the chain behind a result: how it was measured, and what each of its ancestors was made from and by.

    Args:
        uri: URI of an output of a verb, such as a report, a result, a checkpoint or an index, or a file in one.
        json: Print everything as JSON. The text shows the first few of many crawls.
    """
    from previts import lineage

    asked = lineage.find(uri)
    chain = lineage.read_chain(asked.folder)
    return lineage.to_json(asked, chain) if json else lineage.describe(asked, chain)


def compare(root: str = "", runs: Sequence[str] = ()) -> str:
    """Print rows next to each other: their main numbers in MLflow, with intervals over seeds and differences.

    Args:
        root: Folder or bucket prefix of all results. Needed unless MLFLOW_TRACKING_URI is set.
        runs: Ids or names of the parent runs to compare. Without them, the newest one with numbers.
    """
    from previts import compare as tool

    if not root and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError("give --root, the folder of all results, or set MLFLOW_TRACKING_URI to the MLflow server")
    return tool.compare(root, runs)


def withdraw(
    videos: Annotated[Positional[tuple[str, ...]], arg(metavar="ID-or-URL ...")],
    *,
    root: str,
    reason: str,
    purge: Annotated[bool, FlagCreatePairsOff] = False,
) -> str:
    """Withdraw videos: later downloads do not fetch them, and later indexes leave them out. Lists what rests on them.

    Args:
        videos: Ids or URLs, as in a crawl. An id stands for the videos of this id in all crawls.
        root: Folder or bucket prefix of all results.
        reason: Why the videos are withdrawn; it is shown wherever one is missing.
        purge: Also delete their bytes under the root: clips, masks, salient regions, and reports that show them.
    """
    from previts import withdraw as tool

    return tool.withdraw(videos, root, reason, purge=purge)


def variants(
    images: Annotated[Positional[str], arg(metavar="IMAGES")],
    masks: Annotated[Positional[str], arg(metavar="MASKS")],
    out: Annotated[Positional[str], arg(metavar="OUT")],
    seed: int = 0,
) -> str:
    """Make the eight variants of the Backgrounds Challenge from images and the masks of their objects.

    Args:
        images: Folder with <class>/<image>.
        masks: Folder with <class>/<image>.png, each of the size of its image. Pixels that are not 0 are the object.
        out: Folder for <variant>/val/<class>/<image>, fg_mask/val and manifest.csv.
        seed: Seed that selects the backgrounds of the mixed variants.
    """
    from previts.evals.backgrounds import variant_folders

    if seed < 0:
        raise InputError(f"--seed must be 0 or more, got {seed}")
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
    "compare": compare,
    "why": why,
    "withdraw": withdraw,
    "variants": variants,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; an error that the user can fix is printed without a traceback."""
    machine.limit_threads()
    with readable_errors():
        commands = {**VERBS, **TOOLS}
        commands |= {name: with_take_over(commands[name]) for name in (*VERBS, "world")}
        print(run_command("previts", commands, HELP, arguments))


def run_command(
    program: str, commands: Mapping[str, Callable[..., Any]], help: str, arguments: Sequence[str] | None = None
) -> Any:
    """Call the function of a command with the arguments of the command line, and return its result.

    Args:
        program: Name of the program, for messages and help texts.
        commands: Functions by the names of their commands.
        help: Text that `--help` prints for the program. tyro makes the help of each command from its function.
        arguments: The command and its arguments, by default those of this process.

    Raises:
        InputError: If the command is missing or unknown.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        print(help, end="")
        sys.exit(0)
    found = next((known for known in commands if known.replace("-", "_") == name.replace("-", "_")), None)
    if not name:
        raise InputError(f"no command was given; allowed: {', '.join(commands)} (`{program} --help` explains them)")
    if found is None:
        raise unknown_name(name, commands, "command")
    return tyro.cli(commands[found], prog=f"{program} {found}", args=rest)


def with_take_over(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that calls a verb, with the additional option `--take-over`."""

    @functools.wraps(verb)
    def command(*args: Any, take_over: bool = False, **kwargs: Any) -> Any:
        if take_over:
            os.environ.setdefault(holders.TAKE_OVER, uuid.uuid4().hex)
        return verb(*args, **kwargs)

    kind = Annotated[bool, FlagCreatePairsOff, arg(help=TAKE_OVER_HELP)]
    option = inspect.Parameter("take_over", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
    signature = inspect.signature(verb)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), option]
    )
    del command.__wrapped__  # tyro would read the types of the verb
    command.__annotations__ = {**verb.__annotations__, "take_over": kind}
    return command
