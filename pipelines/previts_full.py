"""The whole of PreViTS as one DAG: from a crawl of videos to a page that compares the rows.

Inner DAGs, each with flat loops. What a loop's body needs from outside comes in as an input of its DAG: the embedded
engine takes an output of a sibling task, named inside a loop, for the loop's item.
"""

from kfp import dsl

from components._images import LAUNCHER, TRAIN_IMAGE
from components.download import download
from components.evaluate import evaluate
from components.fit_saliency import fit_saliency
from components.flow import close, one, pairs, plan, settle, share, unprocessed
from components.index import index
from components.pretrain import pretrain
from components.report import report
from components.saliency import saliency
from components.track import track
from pipelines.cluster import by_own_token, place, with_gpus

KEPT = dsl.PipelineConfig(ttl_seconds_after_success=3 * 86400, ttl_seconds_after_failure=14 * 86400)


@dsl.pipeline(name="fetch")
def fetch(crawl: str, root: str, profile: str, set: list[str], parts: int) -> str:
    """Fetch and normalise the videos, shared out to workers."""
    with dsl.ParallelFor(place(share(parts=parts)).output) as part:
        stored = download(crawl=crawl, root=root, profile=profile, set=set, part=part, parts=parts)
        by_own_token(place(stored, cpu="8", memory="16Gi", scratch="64Gi", hours=48))
    return place(one(uris=dsl.Collected(stored.outputs["Output"]))).output


@dsl.pipeline(name="perceive")
def perceive(
    videos: str, model: str, root: str, profile: str, set: list[str], parts: int, gpus: str, gpu_nodes: dict[str, str]
) -> str:
    """Find and follow the object of each video, shared out to workers."""
    with dsl.ParallelFor(place(share(parts=parts)).output) as part:
        regions = saliency(videos=videos, model=model, root=root, profile=profile, set=set, part=part, parts=parts)
        with_gpus(place(regions, cpu="8", memory="24Gi", scratch="16Gi", hours=48), gpus, gpu_nodes)
        masks = regions.outputs["Output"]
        followed = track(videos=videos, saliency=masks, root=root, profile=profile, set=set, part=part, parts=parts)
        place(followed, cpu="8", memory="16Gi", scratch="16Gi", hours=24)
    return place(one(uris=dsl.Collected(followed.outputs["Output"]))).output


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
    training_gpus: str,
    evaluation_gpus: str,
    gpu_nodes: dict[str, str],
) -> str:
    """Pretrain each row, evaluate each checkpoint on each benchmark, and compare."""
    with dsl.ParallelFor(rows) as row:
        trained = pretrain(
            row=row, index=index, root=root, profile=profile, set=set, launcher=launcher, processes=processes, job=job
        )
        if LAUNCHER == "local":
            place(trained, cpu="8", memory="48Gi", scratch="32Gi", hours=14 * 24, retries=5)
            with_gpus(trained, training_gpus, gpu_nodes)
        else:  # it only waits for a job, whose image is another, and which ends where this step's node is taken
            waits = place(trained, hours=14 * 24, retries=5, spot=False)
            waits.set_env_variable("PREVITS_TRAIN_IMAGE", TRAIN_IMAGE)
    checkpoints = dsl.Collected(trained.outputs["Output"])
    todo = pairs(
        rows=shown, benchmarks=benchmarks, checkpoints=checkpoints, index=index, root=root, profile=profile, set=set
    )
    with dsl.ParallelFor(place(todo).output) as pair:
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
        place(measured, cpu="8", memory="48Gi", scratch="32Gi", hours=72)
        with_gpus(measured, evaluation_gpus, gpu_nodes)
    results = dsl.Collected(measured.outputs["Output"])
    page = report(rows=shown, index=index, results=results, root=root, profile=profile, set=set)
    written = place(page, cpu="2", memory="8Gi", scratch="8Gi", hours=2).outputs["Output"]
    place(settle(report=written), retries=0)  # it says what failed; that is not mended by saying it again
    return written


@dsl.pipeline(name="study")
def study(
    crawl: str,
    root: str,
    data: str,
    rows: list[str],
    benchmarks: list[str],
    profile: str,
    set: list[str],
    parts: int,
    launcher: str,
    processes: int,
    job: list[str],
    evaluation_processes: int,
    perception_gpus: str,
    training_gpus: str,
    evaluation_gpus: str,
    gpu_nodes: dict[str, str],
) -> None:
    """Check the choices, then go from one crawl to its report."""
    chosen = dict(locals())  # first: a name that is assigned before it would become an argument too
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
    place(distinct)
    videos = fetch(crawl=crawl, root=root, profile=profile, set=set, parts=parts).after(distinct).output
    fitted = fit_saliency(videos=videos, root=root, profile=profile, set=set)
    place(fitted, cpu="8", memory="48Gi", scratch="32Gi", hours=72)
    model = with_gpus(fitted, perception_gpus, gpu_nodes).outputs["Output"]
    tubes = perceive(
        videos=videos,
        model=model,
        root=root,
        profile=profile,
        set=set,
        parts=parts,
        gpus=perception_gpus,
        gpu_nodes=gpu_nodes,
    ).output
    joined = index(videos=videos, tubes=tubes, root=root, profile=profile, set=set)
    corpus = place(joined, cpu="2", memory="16Gi", hours=4).outputs["Output"]
    used_before = ("crawl", "rows", "parts", "perception_gpus")
    passed_on = {name: value for name, value in chosen.items() if name not in used_before}
    learn(rows=distinct.output, shown=rows, index=corpus, **passed_on)


@dsl.pipeline(
    name="previts-full",
    description="Videos are fetched, their salient objects followed, encoders pretrained, evaluated and compared.",
    pipeline_config=KEPT,
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
    launcher: str = LAUNCHER,
    processes: int = 1,
    job: list[str] = [],
    evaluation_processes: int = 1,
    perception_gpus: str = "0",
    training_gpus: str = "0",
    evaluation_gpus: str = "0",
    gpu_nodes: dict[str, str] = {},
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
        perception_gpus: GPUs of the steps that fit and apply the saliency model; text.
        training_gpus: GPUs of a pretraining step that trains itself; text.
        evaluation_gpus: GPUs of an evaluation; text.
        gpu_nodes: Labels of the nodes for steps with GPUs.
    """
    chosen = dict(locals())  # first: a name that is assigned before it would become an argument too
    with dsl.ExitHandler(place(close(root=root), retries=0)):
        study(**chosen)


@dsl.pipeline(
    name="previts-scheduled",
    description="The oldest manifest below a prefix that no report rests on yet goes through the whole flow.",
    pipeline_config=KEPT,
)
def previts_scheduled(
    crawls: str,
    root: str,
    data: str,
    rows: list[str] = ["1/vgg/moco", "1/vgg/sampling", "1/vgg/previts"],
    benchmarks: list[str] = [],
    profile: str = "paper",
    set: list[str] = [],
    parts: int = 8,
    launcher: str = LAUNCHER,
    processes: int = 1,
    job: list[str] = [],
    evaluation_processes: int = 1,
    perception_gpus: str = "0",
    training_gpus: str = "0",
    evaluation_gpus: str = "0",
    gpu_nodes: dict[str, str] = {},
) -> None:
    """Run the whole flow on the next crawl, if there is one; the other parameters are those of `previts_full`.

    `crawls` is a folder or bucket prefix to which manifests are added, one a crawl, in the order of their names.
    """
    chosen = dict(locals())  # first: a name that is assigned before it would become an argument too
    del chosen["crawls"]
    with dsl.ExitHandler(place(close(root=root), retries=0)):
        crawl = place(unprocessed(crawls=crawls, root=root)).output
        # Known only when it runs, so this branch cannot be taken in Python.
        with dsl.If(crawl != ""):
            study(crawl=crawl, **chosen)
