"""The components between the verbs: check a run, collect the parts, check its evaluations, close the run.

Each calls the function of the same name in `previts.runs`.
"""

from typing import NamedTuple

from kfp import dsl

from components._images import DATA_IMAGE, TRAIN_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def check_run(
    crawl: str,
    root: str,
    data: str,
    rows: list[str],
    seeds: list[int],
    benchmarks: list[str],
    profile: str,
    set: list[str],
    parts: int,
    launcher: str,
    processes: int,
    job: list[str],
    sizes: dict[str, str],
) -> NamedTuple(  # type: ignore[valid-type]
    "Plan",
    [
        ("crawl", str),
        ("parts", list[int]),
        ("trials", list[int]),
        ("evaluations", list[int]),
        ("cpu", str),
        ("data_memory", str),
        ("saliency_memory", str),
        ("training_memory", str),
        ("report_cpu", str),
        ("report_memory", str),
    ],
):
    """Check the parameters and inputs of a run; return its crawls, the numbers of its loops, and the sizes of steps."""
    from components._step import run
    from previts.runs import steps

    return run(
        lambda: steps.check_run(
            crawl=crawl,
            root=root,
            data=data,
            rows=rows,
            seeds=[int(seed) for seed in seeds],
            benchmarks=benchmarks,
            profile=profile,
            set=set,
            parts=int(parts),
            launcher=launcher,
            processes=int(processes),
            job=job,
            sizes=sizes,
        ),
        root=root,
        name="check-run",
    )


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def collect_videos(uris: list[str], root: str) -> str:
    """Check that all parts of `download` wrote one finished output, and return its URI."""
    from components._step import run
    from previts.runs import steps

    return run(lambda: steps.collect_parts([{"": uri} for uri in uris])[""], root=root, name="collect-videos")


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def check_evaluations(report: str, root: str) -> None:
    """Fail if an evaluation that the report shows has failed; else note that the run finished."""
    from components._step import run
    from previts.runs import steps

    run(lambda: steps.check_evaluations(report, root), root=root, name="check-evaluations")


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def close_run(root: str, summary: dsl.Output[dsl.Markdown]) -> None:
    """Mark interrupted MLflow runs as failed, and describe how the pipeline run ended."""
    from components._step import run
    from previts.runs import steps

    with open(summary.path, "w") as page:
        page.write(run(lambda: steps.close_run(root)))
