"""The component of the verb `report`."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def report(
    rows: list[str],
    seeds: list[int],
    indexes: dict[str, str],
    results: list[list[str]],
    root: str,
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
) -> str:
    """Write the report that compares the rows."""
    from components._step import copy_file, run
    from previts.runs import steps

    def work() -> str:
        uri = steps.report(
            rows=rows,
            seeds=[int(seed) for seed in seeds],
            indexes=indexes,
            results=results,
            root=root,
            profile=profile,
            set=set,
        )
        copy_file(uri, "report.html", page.path)
        copy_file(uri, "report.md", summary.path)
        return uri

    return run(work, root=root, name="report")
