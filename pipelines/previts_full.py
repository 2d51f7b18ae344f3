"""The whole of PreViTS as one DAG: from a crawl of videos to a page that compares the rows.

Loops are flat on purpose: rows to pretrain, then pairs of checkpoint and benchmark to evaluate.
"""

from kfp import dsl

from components.download import download
from components.evaluate import evaluate
from components.fit_saliency import fit_saliency
from components.flow import close, one, pairs, plan
from components.index import index
from components.pretrain import pretrain
from components.report import report
from components.saliency import saliency
from components.track import track


@dsl.pipeline(
    name="previts-full",
    description="Videos are fetched, their salient objects followed, encoders pretrained, evaluated and compared.",
)
def previts_full(
    crawl: str,
    root: str,
    data: str,
    rows: list[str] = ["1/vgg/moco", "1/vgg/sampling", "1/vgg/previts"],
    benchmarks: list[str] = ["voc07", "in1k", "in9", "davis"],
    profile: str = "paper",
    set: list[str] = [],
    parts: int = 8,
    launcher: str = "local",
    processes: int = 1,
) -> None:
    """Run the whole flow.

    Args:
        crawl: A CSV or Parquet manifest of videos, the CSV of VGG-Sound or Kinetics, or a folder.
        root: Folder or bucket prefix under which every result lies; the same root again goes on where it stopped.
        data: Folder of the labelled sets: voc/, imagenet/, in9/, davis/.
        rows: Rows or tables of the paper to pretrain and compare.
        benchmarks: What to evaluate each row on.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as sampling.min_overlap=0.2.
        parts: Workers that share the videos.
        launcher: Where the training program runs.
        processes: Training processes, one a GPU.
    """
    with dsl.ExitHandler(close(root=root)):
        loops = plan(crawl=crawl, data=data, rows=rows, benchmarks=benchmarks, profile=profile, set=set, parts=parts)
        with dsl.ParallelFor(loops.outputs["parts"]) as part:
            fetched = download(crawl=crawl, root=root, profile=profile, set=set, part=part, parts=parts)
        videos = one(uris=dsl.Collected(fetched.outputs["Output"])).output
        model = fit_saliency(videos=videos, root=root, profile=profile, set=set).outputs["Output"]
        with dsl.ParallelFor(loops.outputs["parts"]) as part:
            regions = saliency(videos=videos, model=model, root=root, profile=profile, set=set, part=part, parts=parts)
            followed = track(
                videos=videos,
                saliency=regions.outputs["Output"],
                root=root,
                profile=profile,
                set=set,
                part=part,
                parts=parts,
            )
        tubes = one(uris=dsl.Collected(followed.outputs["Output"])).output
        corpus = index(videos=videos, tubes=tubes, root=root).outputs["Output"]
        with dsl.ParallelFor(loops.outputs["rows"]) as row:
            trained = pretrain(
                row=row, index=corpus, root=root, profile=profile, set=set, launcher=launcher, processes=processes
            )
        todo = pairs(
            rows=loops.outputs["rows"],
            benchmarks=benchmarks,
            checkpoints=dsl.Collected(trained.outputs["Output"]),
            index=corpus,
            root=root,
            profile=profile,
            set=set,
        )
        with dsl.ParallelFor(todo.output) as pair:
            measured = evaluate(
                row=pair.row,
                benchmark=pair.benchmark,
                checkpoint=pair.checkpoint,
                data=data,
                root=root,
                profile=profile,
                set=set,
            )
        report(
            rows=rows,
            index=corpus,
            results=dsl.Collected(measured.outputs["Output"]),
            root=root,
            profile=profile,
            set=set,
        )
