"""The component of the verb `download`."""

from kfp import dsl

from components._images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def download(
    crawl: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
    part: int = 0,
    parts: int = 1,
    max_failure_fraction: float = 0.5,
) -> str:
    """Download one part of the videos of a crawl, normalise them and store them in shards."""
    from components._step import run_stage
    from previts import stages

    return run_stage(
        lambda: stages.download(
            crawl=crawl,
            root=root,
            profile=profile,
            set=set,
            part=int(part),
            parts=int(parts),
            max_failure_fraction=max_failure_fraction,
        ),
        summary.path,
        root=root,
        name=f"videos/download-{int(part)}",
    )
