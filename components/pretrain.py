"""Pretrain the encoder of one row."""

from kfp import dsl

from components._images import PRETRAIN_IMAGE


@dsl.component(base_image=PRETRAIN_IMAGE, install_kfp_package=False)
def pretrain(
    row: str,
    index: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    launcher: str = "local",
    processes: int = 1,
    job: list[str] = [],
) -> str:
    """See `previts.stages.pretrain`."""
    from previts import addresses, cli, stages, storage

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = stages.pretrain(row, index, root, profile, set, launcher, int(processes), job)
        page.write(addresses.describe(uri))
        metrics.metadata.update(storage.read_manifest(uri).counts)
    return uri
