"""`python -m pipelines`: compile the DAG to the committed YAML, or run it on this machine."""

import tyro

from pipelines.local import run_local
from previts.cli import readable_errors

PACKAGE = "pipelines/previts_full.yaml"


def compile(target: str = PACKAGE) -> None:
    """Compile the pipeline to the YAML that a cluster runs.

    Args:
        target: File to write.
    """
    from kfp import compiler

    from pipelines.previts_full import previts_full

    compiler.Compiler().compile(previts_full, target)


def main() -> None:
    """Run one subcommand."""
    with readable_errors():
        tyro.extras.subcommand_cli_from_dict(
            {"compile": compile, "run-local": run_local}, prog="python -m pipelines", description=__doc__
        )


main()
