"""The steps between the verbs: plan a run, fan in, pair checkpoints with benchmarks, close."""

from kfp import dsl

from components._images import DATA_IMAGE, TRAIN_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def plan(
    crawl: str,
    data: str,
    rows: list[str],
    benchmarks: list[str],
    profile: str,
    set: list[str],
    parts: int,
    launcher: str,
    processes: int,
    job: list[str],
) -> list[str]:
    """See `previts.flow.plan`."""
    from previts import cli, flow

    with cli.readable_errors():
        return flow.plan(crawl, data, rows, benchmarks, profile, set, int(parts), launcher, int(processes), job)


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def unprocessed(crawls: str, root: str) -> str:
    """See `previts.flow.unprocessed`."""
    from previts import cli, flow

    with cli.readable_errors():
        return flow.unprocessed(crawls, root)


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def share(parts: int) -> list[int]:
    """Return the numbers of the workers that share the videos."""
    return list(range(int(parts)))


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def one(uris: list[str]) -> str:
    """See `previts.flow.one`."""
    from previts import cli, flow

    with cli.readable_errors():
        return flow.one(uris)


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def pairs(
    rows: list[str],
    benchmarks: list[str],
    checkpoints: list[str],
    index: str,
    root: str,
    profile: str,
    set: list[str],
) -> list[dict[str, str]]:
    """See `previts.flow.pairs`."""
    from previts import cli, flow

    with cli.readable_errors():
        return flow.pairs(rows, benchmarks, checkpoints, index, root, profile, set)


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def settle(report: str) -> None:
    """See `previts.flow.settle`."""
    from previts import cli, flow

    with cli.readable_errors():
        flow.settle(report)


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def close(root: str, status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """See `previts.flow.close`."""
    from previts import cli, flow

    with cli.readable_errors(), open(summary.path, "w") as page:
        page.write(flow.close(root, status.state, status.error_message or ""))
