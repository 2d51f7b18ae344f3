"""`python -m pipelines`: compile the pipelines, run one on this machine, or submit or schedule one on a cluster."""

import os

import tyro

from pipelines.local import run_local
from pipelines.remote import check_images, schedule, submit
from previts.processes.exits import readable_errors


def compile(folder: str = "pipelines", production: bool = False) -> None:
    """Compile the pipelines to the YAML that a cluster runs.

    The YAML names its images and calls functions that are in these images. Release both together.

    Args:
        folder: Folder for previts_full.yaml and previts_scheduled.yaml.
        production: Refuse images without a digest.
    """
    from kfp import compiler

    from pipelines.previts_full import previts_full, previts_scheduled

    if production:
        check_images()
    for pipeline in (previts_full, previts_scheduled):
        compiler.Compiler().compile(pipeline, os.path.join(folder, f"{pipeline.name.replace('-', '_')}.yaml"))


def main() -> None:
    """Parse the command line and run one subcommand."""
    with readable_errors():
        tyro.extras.subcommand_cli_from_dict(
            {"compile": compile, "run-local": run_local, "submit": submit, "schedule": schedule},
            prog="python -m pipelines",
            description=__doc__,
        )


main()
