"""The pipeline of PreViTS: from crawls of videos to a report that compares the rows.

The DAGs are nested, and each has flat loops. A loop takes values from outside through the inputs of its DAG. The
embedded engine passes the loop's item instead of the output of a sibling task that is named inside a loop.

Loops have no `name`: some backends look up the outputs of a loop by that name and do not find them.

An outer pipeline passes its parameters on as `dict(locals())`. This must be its first line, because `locals()` also
contains every variable that is assigned before.
"""

from kfp import dsl

from components._images import LAUNCHER, TRAIN_IMAGE
from components.download import download
from components.evaluate import evaluate
from components.fit_saliency import fit_saliency
from components.flow import (
    check_evaluations,
    check_run,
    close_run,
    collect_videos,
)
from components.index import index
from components.pretrain import pretrain
from components.report import report
from components.saliency import saliency
from components.track import track
from pipelines.cluster import place, with_crawl_rules, with_google_token, with_gpus, with_launcher_account

KEPT = dsl.PipelineConfig(ttl_seconds_after_success=3 * 86400, ttl_seconds_after_failure=14 * 86400)


@dsl.pipeline(name="download-crawls")
def download_crawls(
    crawl: str, root: str, profile: str, set: list[str], numbers: list[int], parts: int, cpu: str, memory: str
) -> str:
    """Download and normalise the videos of all crawls, one step for each part."""
    with dsl.ParallelFor(numbers) as part:
        stored = download(crawl=crawl, root=root, profile=profile, set=set, part=part, parts=parts)
        place(stored, cpu=cpu, memory=memory, scratch="64Gi", hours=48, retries=2)
        with_crawl_rules(with_google_token(stored))
    return place(collect_videos(uris=dsl.Collected(stored.outputs["Output"]), root=root)).output


@dsl.pipeline(name="find-objects")
def find_objects(
    videos: str,
    models: dict[str, str],
    root: str,
    data: str,
    profile: str,
    set: list[str],
    numbers: list[int],
    parts: int,
    cpu: str,
    saliency_memory: str,
    data_memory: str,
    gpus: str,
    gpu_nodes: dict[str, str],
) -> dict[str, str]:
    """Find and track the object in each video with each model, one pair of steps for each part, and join the parts."""
    with dsl.ParallelFor(numbers) as part:
        found = saliency(videos=videos, models=models, root=root, profile=profile, set=set, part=part, parts=parts)
        with_gpus(place(found, cpu=cpu, memory=saliency_memory, scratch="16Gi", hours=48, retries=2), gpus, gpu_nodes)
        regions = found.outputs["Output"]
        tubes = track(videos=videos, regions=regions, root=root, profile=profile, set=set, part=part, parts=parts)
        place(tubes, cpu=cpu, memory=data_memory, scratch="16Gi", hours=24, retries=2)
    collected = dsl.Collected(tubes.outputs["Output"])
    joined = index(videos=videos, tubes=collected, root=root, profile=profile, set=set, data=data)
    return place(joined, cpu=cpu, memory=data_memory, hours=24, retries=2).outputs["Output"]


@dsl.pipeline(name="pretrain-and-evaluate")
def pretrain_and_evaluate(
    trials: list[int],
    evaluations: list[int],
    rows: list[str],
    seeds: list[int],
    benchmarks: list[str],
    indexes: dict[str, str],
    data: str,
    root: str,
    profile: str,
    set: list[str],
    launcher: str,
    processes: int,
    job: list[str],
    evaluation_processes: int,
    cpu: str,
    training_memory: str,
    report_cpu: str,
    report_memory: str,
    training_gpus: str,
    evaluation_gpus: str,
    gpu_nodes: dict[str, str],
) -> str:
    """Pretrain each trial, evaluate each checkpoint on each benchmark, and write the report."""
    with dsl.ParallelFor(trials) as part:
        trained = pretrain(
            indexes=indexes,
            root=root,
            rows=rows,
            seeds=seeds,
            part=part,
            profile=profile,
            set=set,
            launcher=launcher,
            processes=processes,
            job=job,
        )
        with_launcher_account(trained)
        if LAUNCHER == "local":
            place(trained, cpu=cpu, memory=training_memory, scratch="32Gi", hours=14 * 24, retries=5)
            with_gpus(trained, training_gpus, gpu_nodes)
        else:
            # The step only waits for a job with another image. The job ends if the step's node is preempted.
            waiting = place(trained, hours=14 * 24, retries=5, spot=False)
            waiting.set_env_variable("PREVITS_TRAIN_IMAGE", TRAIN_IMAGE)
    with dsl.ParallelFor(evaluations) as part:
        evaluated = evaluate(
            indexes=indexes,
            data=data,
            root=root,
            rows=rows,
            seeds=seeds,
            part=part,
            benchmarks=benchmarks,
            profile=profile,
            set=set,
            processes=evaluation_processes,
        ).after(trained)
        place(evaluated, cpu=cpu, memory=training_memory, scratch="32Gi", hours=72, retries=2)
        with_gpus(evaluated, evaluation_gpus, gpu_nodes)
    results = dsl.Collected(evaluated.outputs["Output"])
    page = report(rows=rows, seeds=seeds, indexes=indexes, results=results, root=root, profile=profile, set=set)
    written = place(page, cpu=report_cpu, memory=report_memory, scratch="8Gi", hours=2).outputs["Output"]
    place(check_evaluations(report=written, root=root))
    return written


@dsl.pipeline(name="crawls-to-report")
def crawls_to_report(
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
    evaluation_processes: int,
    sizes: dict[str, str],
    perception_gpus: str,
    training_gpus: str,
    evaluation_gpus: str,
    gpu_nodes: dict[str, str],
) -> None:
    """Check the run, then run every stage from the crawls to the report."""
    given = dict(locals())  # must be the first line
    checked = check_run(
        crawl=crawl,
        root=root,
        data=data,
        rows=rows,
        seeds=seeds,
        benchmarks=benchmarks,
        profile=profile,
        set=set,
        parts=parts,
        launcher=launcher,
        processes=processes,
        job=job,
        sizes=sizes,
    )
    plan = place(checked).outputs
    videos = download_crawls(
        crawl=plan["crawl"],
        root=root,
        profile=profile,
        set=set,
        numbers=plan["parts"],
        parts=parts,
        cpu=plan["cpu"],
        memory=plan["data_memory"],
    ).output
    fitted = fit_saliency(videos=videos, root=root, rows=rows, profile=profile, set=set)
    place(fitted, cpu=plan["cpu"], memory=plan["training_memory"], scratch="32Gi", hours=72, retries=2)
    models = with_gpus(fitted, perception_gpus, gpu_nodes).outputs["Output"]
    indexes = find_objects(
        videos=videos,
        models=models,
        root=root,
        data=data,
        profile=profile,
        set=set,
        numbers=plan["parts"],
        parts=parts,
        cpu=plan["cpu"],
        saliency_memory=plan["saliency_memory"],
        data_memory=plan["data_memory"],
        gpus=perception_gpus,
        gpu_nodes=gpu_nodes,
    ).output
    earlier = ("crawl", "parts", "sizes", "perception_gpus")  # parameters of the steps above alone
    rest = {name: value for name, value in given.items() if name not in earlier}
    planned = ("trials", "evaluations", "cpu", "training_memory", "report_cpu", "report_memory")
    pretrain_and_evaluate(indexes=indexes, **{name: plan[name] for name in planned}, **rest)


@dsl.pipeline(
    name="previts-full",
    description="Download videos, track their salient objects, pretrain and evaluate encoders, and compare them.",
    pipeline_config=KEPT,
)
def previts_full(
    crawl: str,
    root: str,
    data: str,
    rows: list[str] = ["1/vgg/moco", "1/vgg/sampling", "1/vgg/previts"],
    seeds: list[int] = [0],
    benchmarks: list[str] = [],
    profile: str = "paper",
    set: list[str] = [],
    parts: int = 8,
    launcher: str = LAUNCHER,
    processes: int = 1,
    job: list[str] = [],
    evaluation_processes: int = 1,
    sizes: dict[str, str] = {},
    perception_gpus: str = "0",
    training_gpus: str = "0",
    evaluation_gpus: str = "0",
    gpu_nodes: dict[str, str] = {},
) -> None:
    """Run every stage from the crawls to the report.

    Args:
        crawl: A list of videos as CSV or Parquet, the CSV of VGG-Sound or Kinetics, or a folder of videos. Or a folder
            or bucket prefix of such lists: then all of them are the corpus, and a run downloads only what is new.
        root: Folder or bucket prefix of all results. A second run with the same root resumes and repeats nothing.
        data: Folder of the labelled datasets: voc/, imagenet/, coco/, in9/, davis/, ucf101/ and so on.
        rows: Rows, tables or groups of tables (6, 6-video, all) of the paper to pretrain and compare.
        seeds: Seeds of each row: it is pretrained and evaluated once with each.
        benchmarks: Benchmarks of each row. By default each row runs those that the paper reports for it.
        profile: Size of the run: paper or demo.
        set: Changes to single settings, such as sampling.min_overlap=0.2.
        parts: Number of parts into which the videos are divided, one step for each.
        launcher: Where pretraining runs: local (in the pod of its step) or pytorchjob.
        processes: Training processes, one for each GPU.
        job: Settings of a PyTorchJob, such as spot=true, queue=research or namespace=team.
        evaluation_processes: Processes of an evaluation that trains, one for each GPU.
        sizes: Cores and memory of steps that differ from those of the profile, such as {"training_memory": "64Gi"}.
        perception_gpus: GPUs of a step that fits or applies the saliency model, as text.
        training_gpus: GPUs of a pretraining step with the local launcher, as text.
        evaluation_gpus: GPUs of an evaluation step, as text.
        gpu_nodes: Labels of the nodes for steps with GPUs.
    """
    given = dict(locals())  # must be the first line
    with dsl.ExitHandler(place(close_run(root=root))):
        crawls_to_report(**given)
