"""The whole of PreViTS as one DAG: from a crawl of videos to a page that compares the rows.

Three inner DAGs, each with flat loops. What a loop's body needs from outside comes in as an input of its DAG: the
embedded engine takes an output of a sibling task, named inside a loop, for the loop's item.
"""

from kfp import dsl

from components.download import download
from components.evaluate import evaluate
from components.fit_saliency import fit_saliency
from components.flow import close, one, pairs, plan, settle, share
from components.index import index
from components.pretrain import pretrain
from components.report import report
from components.saliency import saliency
from components.track import track


@dsl.pipeline(name="fetch")
def fetch(crawl: str, root: str, profile: str, set: list[str], parts: int) -> str:
    """Fetch and normalise the videos, shared out to workers."""
    with dsl.ParallelFor(share(parts=parts).output) as part:
        stored = download(crawl=crawl, root=root, profile=profile, set=set, part=part, parts=parts)
    return one(uris=dsl.Collected(stored.outputs["Output"])).output


@dsl.pipeline(name="perceive")
def perceive(videos: str, model: str, root: str, profile: str, set: list[str], parts: int) -> str:
    """Find and follow the object of each video, shared out to workers."""
    with dsl.ParallelFor(share(parts=parts).output) as part:
        regions = saliency(videos=videos, model=model, root=root, profile=profile, set=set, part=part, parts=parts)
        masks = regions.outputs["Output"]
        followed = track(videos=videos, saliency=masks, root=root, profile=profile, set=set, part=part, parts=parts)
    return one(uris=dsl.Collected(followed.outputs["Output"])).output


@dsl.pipeline(name="learn")
def learn(
    rows: list[str],
    shown: list[str],
    benchmarks: list[str],
    index: str,
    data: str,
    root: str,
    profile: str,
    set: list[str],
    launcher: str,
    processes: int,
    job: list[str],
    evaluation_processes: int,
) -> str:
    """Pretrain each row, evaluate each checkpoint on each benchmark, and compare."""
    with dsl.ParallelFor(rows) as row:
        trained = pretrain(
            row=row, index=index, root=root, profile=profile, set=set, launcher=launcher, processes=processes, job=job
        )
    checkpoints = dsl.Collected(trained.outputs["Output"])
    todo = pairs(
        rows=shown, benchmarks=benchmarks, checkpoints=checkpoints, index=index, root=root, profile=profile, set=set
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
            processes=evaluation_processes,
        )
    results = dsl.Collected(measured.outputs["Output"])
    page = report(rows=shown, index=index, results=results, root=root, profile=profile, set=set).outputs["Output"]
    settle(report=page)
    return page


@dsl.pipeline(
    name="previts-full",
    description="Videos are fetched, their salient objects followed, encoders pretrained, evaluated and compared.",
)
def previts_full(
    crawl: str,
    root: str,
    data: str,
    rows: list[str] = ["1/vgg/moco", "1/vgg/sampling", "1/vgg/previts"],
    benchmarks: list[str] = [],
    profile: str = "paper",
    set: list[str] = [],
    parts: int = 8,
    launcher: str = "local",
    processes: int = 1,
    job: list[str] = [],
    evaluation_processes: int = 1,
) -> None:
    """Run the whole flow.

    Args:
        crawl: A CSV or Parquet manifest of videos, the CSV of VGG-Sound or Kinetics, or a folder.
        root: Folder or bucket prefix under which every result lies; the same root again goes on where it stopped.
        data: Folder of the labelled sets: voc/, imagenet/, coco/, in9/, davis/, ucf101/ and so on.
        rows: Rows or tables of the paper to pretrain and compare.
        benchmarks: What to evaluate each row on; by default what the paper has for it.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as sampling.min_overlap=0.2.
        parts: Workers that share the videos.
        launcher: Where the training program runs: local, in its step's own pod, or pytorchjob.
        processes: Training processes, one a GPU.
        job: Settings of a PyTorchJob, such as spot=true, queue=research or namespace=team.
        evaluation_processes: Processes of each evaluation that trains, one a GPU.
    """
    with dsl.ExitHandler(close(root=root)):
        distinct = plan(
            crawl=crawl,
            data=data,
            rows=rows,
            benchmarks=benchmarks,
            profile=profile,
            set=set,
            parts=parts,
            launcher=launcher,
            processes=processes,
            job=job,
        )
        videos = fetch(crawl=crawl, root=root, profile=profile, set=set, parts=parts).after(distinct).output
        model = fit_saliency(videos=videos, root=root, profile=profile, set=set).outputs["Output"]
        tubes = perceive(videos=videos, model=model, root=root, profile=profile, set=set, parts=parts).output
        corpus = index(videos=videos, tubes=tubes, root=root, profile=profile, set=set).outputs["Output"]
        learn(
            rows=distinct.output,
            shown=rows,
            benchmarks=benchmarks,
            index=corpus,
            data=data,
            root=root,
            profile=profile,
            set=set,
            launcher=launcher,
            processes=processes,
            job=job,
            evaluation_processes=evaluation_processes,
        )
