"""The components between the verbs: check a run, divide the work, collect the parts, list evaluations, close the run.

Each calls the function of the same name in `previts.stages.flow`; `list_parts` needs none.
"""

from kfp import dsl

from components._images import DATA_IMAGE, TRAIN_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def check_run(
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
    """Check the parameters and inputs of a run, and return the rows to pretrain."""
    from components._step import run
    from previts.stages import flow

    return run(
        lambda: flow.check_run(
            crawl=crawl,
            data=data,
            rows=rows,
            benchmarks=benchmarks,
            profile=profile,
            set=set,
            parts=int(parts),
            launcher=launcher,
            processes=int(processes),
            job=job,
        )
    )


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def list_crawls(crawl: str, root: str) -> str:
    """Return the crawl or the list of crawls that all parts of a run download."""
    from components._step import run
    from previts.stages import flow

    return run(lambda: flow.list_crawls(crawl, root))


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def list_parts(parts: int) -> list[int]:
    """Return the numbers of the parts into which the videos are divided."""
    return list(range(int(parts)))


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def collect_parts(uris: list[str]) -> str:
    """Check that all parts wrote one finished output, and return its URI."""
    from components._step import run
    from previts.stages import flow

    return run(lambda: flow.collect_parts(uris))


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def list_evaluations(
    rows: list[str],
    benchmarks: list[str],
    checkpoints: list[str],
    index: str,
    root: str,
    profile: str,
    set: list[str],
) -> list[dict[str, str]]:
    """Return the pairs of a checkpoint and a benchmark to evaluate."""
    from components._step import run
    from previts.stages import flow

    return run(
        lambda: flow.list_evaluations(
            rows=rows,
            benchmarks=benchmarks,
            checkpoints=checkpoints,
            index=index,
            root=root,
            profile=profile,
            set=set,
        )
    )


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def check_evaluations(report: str) -> None:
    """Fail if an evaluation that the report shows has failed."""
    from components._step import run
    from previts.stages import flow

    run(lambda: flow.check_evaluations(report))


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def close_run(root: str, status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Mark interrupted MLflow runs as failed, and describe how the pipeline run ended."""
    from components._step import run
    from previts.stages import flow

    with open(summary.path, "w") as page:
        page.write(run(lambda: flow.close_run(root, status.state, status.error_message or "")))
