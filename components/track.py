"""The component of the verb `track`, for every perception of a run."""

from kfp import dsl

from components._images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def track(
    videos: str,
    regions: dict[str, str],
    root: str,
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
    part: int = 0,
    parts: int = 1,
) -> dict[str, str]:
    """Follow the most salient object through each video of one part."""
    from components._step import run_stages
    from previts.runs import steps

    return run_stages(
        lambda: steps.track(
            videos=videos, regions=regions, root=root, profile=profile, set=set, part=int(part), parts=int(parts)
        ),
        summary.path,
        root=root,
        name=f"track-{int(part)}",
    )
