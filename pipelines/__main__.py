"""`python -m pipelines`: compile the DAGs to the committed YAML, run one on this machine, or hand one to a cluster."""

import os

import tyro

from pipelines.local import run_local
from pipelines.remote import check_images, schedule, submit
from previts.cli import readable_errors


def compile(folder: str = "pipelines", production: bool = False) -> None:
    """Compile the pipelines to the YAML that a cluster runs.

    Args:
        folder: Where to write previts_full.yaml and previts_scheduled.yaml.
        production: Refuse images that are not named by a digest.
    """
    from kfp import compiler

    from pipelines.previts_full import previts_full, previts_scheduled

    if production:
        check_images()
    for pipeline in (previts_full, previts_scheduled):
        compiler.Compiler().compile(pipeline, os.path.join(folder, f"{pipeline.name.replace('-', '_')}.yaml"))


def main() -> None:
    """Run one subcommand."""
    with readable_errors():
        tyro.extras.subcommand_cli_from_dict(
            {"compile": compile, "run-local": run_local, "submit": submit, "schedule": schedule},
            prog="python -m pipelines",
            description=__doc__,
        )


main()
