"""The command line of the pipeline: compile it, run it here, or submit or schedule it on a cluster."""

import os
import sys
from collections.abc import Callable

from pipelines.local import run_local
from pipelines.remote import check_images, parameters_first, schedule, submit
from previts.cli import run_command
from previts.processes.exits import readable_errors

HELP = """\
usage: python -m pipelines COMMAND [OPTIONS]

Run all verbs of previts as one pipeline.
`python -m pipelines COMMAND --help` prints the options of a command.

  run-local  run the whole pipeline on this machine
  compile    compile the pipeline to the YAML that a cluster runs
  submit     run the whole pipeline on a cluster
  schedule   run the whole pipeline on a cluster on a schedule
"""


def compile(folder: str = "pipelines", production: bool = False) -> None:
    """Compile the pipeline to the YAML that a cluster runs.

    The YAML names its images and calls functions in them. Release the YAML and the images together.

    Args:
        folder: Folder for previts_full.yaml.
        production: Refuse images without a digest.
    """
    from kfp import compiler

    from pipelines.previts_full import previts_full

    if production:
        check_images()
    compiler.Compiler().compile(previts_full, os.path.join(folder, "previts_full.yaml"))


def main() -> None:
    """Parse the command line and run one subcommand."""
    with readable_errors():
        commands: dict[str, Callable[..., None]] = {
            "compile": compile,
            "run-local": run_local,
            "submit": submit,
            "schedule": schedule,
        }
        arguments = sys.argv[1:]
        if arguments and arguments[0] in ("submit", "schedule"):
            arguments = [arguments[0], *parameters_first(commands[arguments[0]], arguments[1:])]
        run_command("python -m pipelines", commands, HELP, arguments)


main()
