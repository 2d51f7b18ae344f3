"""The command line: the messages about wrong input, the help texts, and the tools."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moving_squares import make_index

from previts.cli import TOOLS, VERBS, show
from previts.config.perception import FilterConfig
from previts.corpus import index_table
from previts.storage import folders


def previts(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "previts", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def without(absent: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with one module that cannot be imported, since `sys.modules` maps it to None."""
    code = "import sys\nsys.modules[sys.argv.pop(1)] = None\nfrom previts.cli import main\nmain()"
    command = [sys.executable, "-c", code, absent, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("video_id,url,start_seconds,end_seconds,label,split\n")
    (tmp_path / "broken.csv").write_text(
        "video_id,url,start_seconds,end_seconds,label,split\na,a.mp4,0,1,x,train\nb,b.mp4,soon,1,x,train\n,c.mp4,,,x,train\n"
    )
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "page.mp4").write_text("<html>not a video</html>")
    (tmp_path / "bad" / "nothing.mp4").write_bytes(b"")
    (tmp_path / "bad.csv").write_text("video_id,url\npage,bad/page.mp4\nnothing,bad/nothing.mp4\ngone,bad/gone.mp4\n")
    folders.commit(folders.address(str(tmp_path / "root"), "videos", "x", {}), {})
    return tmp_path


MISTAKES = {
    "unknown row": ("pretrain --row 1/vgg/previt --index {0}/i --root {0}/r", ["'1/vgg/previt'", "'1/vgg/previts'"]),
    "the cost of no row": ("show --cost", ["--cost needs a row"]),
    "unknown command": ("pretrian --row 1/vgg/previts", ["'pretrian'", "did you mean 'pretrain'"]),
    "a table instead of a row": (
        "pretrain --row 6b --index {0}/i --root {0}/r",
        ["6b is a table", "6b/mu=0.0, 6b/mu=0.2"],
    ),
    "an index that is not finished": (
        "pretrain --row 1/vgg/previts --index {0}/i --root {0}/r",
        ["--index", "has no manifest.json"],
    ),
    "last part of a field": (
        "pretrain --row 1/vgg/previts --index {0}/i --root {0}/r --set min_overlap=0.2",
        ["did you mean 'sampling.min_overlap'", "allowed in sampling:"],
    ),
    "unknown profile": ("download --crawl {0}/bad --root {0}/r --profile small", ["'small'", "paper, demo"]),
    "unknown field": (
        "fit_saliency --videos {0}/v --root {0}/r --set saliency.evry=2",
        ["saliency.evry", "saliency.every"],
    ),
    "unknown benchmark": (
        "evaluate --row 1/vgg/moco --benchmark voc --checkpoint {0}/c --data {0} --root {0}/r",
        ["'voc'", "'voc07'"],
    ),
    "missing URI": ("index --videos {0}/nowhere --tubes {0}/nowhere --root {0}/r", ["nowhere", "manifest.json"]),
    "URI of another stage": (
        "index --videos {1} --tubes {1} --root {0}/r",
        ["an output of stage 'videos'", "expected an output of stage 'tubes'"],
    ),
    "missing crawl": ("download --crawl {0}/gone.csv --root {0}/r", ["gone.csv"]),
    "broken manifest line": (
        "download --crawl {0}/broken.csv --root {0}/r",
        ["broken.csv", "start_seconds", "soon", "3"],
    ),
    "empty manifest": ("download --crawl {0}/empty.csv --root {0}/r", ["empty.csv", "at least one video"]),
    "empty folder": ("download --crawl {0}/empty --root {0}/r", ["empty", "video"]),
    "every video bad": ("download --crawl {0}/bad.csv --root {0}/r", ["3 of the 3 videos", "fix the crawl"]),
    "unwritable root": ("world --root /dev/null/root", ["/dev/null/root", "choose another root"]),
    "invalid part": ("download --crawl {0}/bad.csv --root {0}/r --part 3 --parts 2", ["part from 0 to parts - 1"]),
    "unknown launcher": (
        "pretrain --row 1/vgg/previts --index {0}/i --root {0}/r --launcher moon",
        ["'moon'", "allowed: local, pytorchjob"],
    ),
    "negative seed": ("world --root {0}/r --seed -1", ["seed must be 0 or more"]),
    "invalid share": (
        "download --crawl {0}/bad.csv --root {0}/r --max-failure-fraction 2",
        ["max_failure_fraction must be from 0 to 1"],
    ),
    "no processes": (
        "pretrain --row 1/vgg/previts --index {0}/i --root {0}/r --processes 0",
        ["processes must be 1 or more"],
    ),
    "no images": ("variants {0}/empty {0}/empty {0}/out", ["empty/<class>/<image>.jpg", "a folder for each class"]),
    "look at a missing file": ("look {0}/gone.mp4", ["gone.mp4: there is no such file", "--index"]),
    "look at a web page": ("look {0}/bad/page.mp4 --out {0}/o", ["page.mp4: the file is a web page, not a video"]),
    "look without a model": (
        "look {0}/bad/page.mp4 --set saliency.method=deepusps",
        ["saliency.method=deepusps needs --model"],
    ),
    "look with a URI that is not a model": (
        "look {0}/bad/page.mp4 --model {1}",
        ["expected an output of stage 'saliency_model'"],
    ),
    "look at a stored video with other settings": (
        "look a --index {1} --set saliency.method=mc",
        ["shown as it was stored", "give the file"],
    ),
    "quality of a URI that is not an index": (
        "quality {1}",
        ["is an output of stage 'videos'", "expected an output of stage 'index'"],
    ),
    "unknown protocol": ("download --crawl nope://x --root {0}/r", ["nope://x", "gs://"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_input_is_reported_with_its_cause_and_remedy_on_one_screen(mistake: str, place: Path):
    command, expected = MISTAKES[mistake]
    (videos,) = (place / "root" / "videos").iterdir()
    run = previts(*command.format(place, videos).split())
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) <= 24, run.stderr
    last = run.stderr[run.stderr.index("previts: ") :]
    assert all(words in last for words in expected), last


def test_missing_credentials_of_a_store_are_reported_on_one_screen(tmp_path: Path):
    away = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(tmp_path), "HOME": str(tmp_path)}
    away |= {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    run = previts("quality", "s3://bucket/index", **away)
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "previts: the object store request failed (NoCredentialsError" in run.stderr


def test_the_traceback_is_printed_if_the_environment_variable_is_set(place: Path):
    run = previts("show", "7/x", PREVITS_TRACEBACK="1")
    assert run.returncode == 2
    assert "Traceback" in run.stderr


@pytest.mark.parametrize(
    ("absent", "command", "extra"),
    [
        ("cv2", "world --root {0}/w", "data"),
        ("av", "download --crawl {0}/bad --root {0}/r", "data"),
        ("torch", "fit_saliency --videos {1} --root {0}/r", "train"),
        ("scipy.io", "world --root {0}/w", "data"),
        ("torch", "variants {0}/empty {0}/empty {0}/out", "train"),
    ],
)
def test_a_missing_package_is_reported_with_the_extra_that_installs_it(
    absent: str, command: str, extra: str, place: Path
):
    (videos,) = (place / "root" / "videos").iterdir()
    run = without(absent, *command.format(place, videos).split())
    assert run.returncode == 2, run.stderr
    package = absent.partition(".")[0]
    assert run.stderr == (
        f"previts: the package {package} is not installed; this command needs the extra '{extra}': "
        f"pip install 'previts[{extra}]'\n"
    )


@pytest.mark.parametrize("absent", ["previts.demo", "numpy"])
def test_any_other_missing_module_has_a_traceback(absent: str, tmp_path: Path):
    run = without(absent, "world", "--root", str(tmp_path))
    assert run.returncode == 1
    assert "Traceback" in run.stderr
    assert f"ModuleNotFoundError: import of {absent} halted" in run.stderr
    assert "pip install" not in run.stderr


def test_show_prints_all_settings_of_a_row(place: Path):
    run = previts("show", "6b/mu=0.2", "--profile", "demo", "--set", "optim.epochs=3")
    assert run.returncode == 0
    shown = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if line.startswith("  "))
    assert (shown["sampling.min_overlap"], shown["optim.epochs"], shown["voc07/map"]) == ("0.2", "3", "72.1")


def test_quality_prints_a_summary_and_writes_every_video(tmp_path: Path):
    made = make_index(tmp_path, 8)
    uri = str(tmp_path / "index" / "corpus-0")
    counts = index_table.write_index(uri, [made.table], FilterConfig(min_tube_seconds=0.1))
    inputs = {"videos": made.crawls[0].videos, "tubes": made.crawls[0].tubes}
    folders.commit(uri, {}, inputs=inputs, counts=counts, files=(index_table.TABLE, index_table.QUALITY))
    run = previts("quality", uri, "--out", str(tmp_path / "all.csv"), "--worst", "3")
    assert run.returncode == 0, run.stderr
    # Two of eight videos have no square. Two others lose it after 22 of 30 frames, at 10 frames a second.
    assert "8, of which the filter left out 2, 2 short" in run.stdout
    assert "filter.min_tube_seconds" in run.stdout
    assert " 1: 6 " in run.stdout
    assert " 4: 0 " in run.stdout
    worst = [line.split()[0] for line in run.stdout[run.stdout.index("The weakest:") :].splitlines()[1:4]]
    assert worst == ["v007", "v003", "v005"]
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["video_id", *(f"v{number:03d}" for number in range(8))]


def test_the_help_lists_each_command_once_and_the_verbs_in_the_order_of_a_run():
    run = previts("--help")
    assert all(run.stdout.count(f"\n  {command} ") == 1 for command in (*VERBS, *TOOLS))
    assert "PREVITS_WORKERS" not in run.stdout
    assert max(len(line) for line in run.stdout.splitlines()) <= 100
    order = [
        run.stdout.index(f"  {verb} ") for verb in ("download", "saliency", "track", "index", "pretrain", "report")
    ]
    assert order == sorted(order)


def test_show_prints_the_cost_of_a_training_step():
    heading, columns, *rows = show("1/vgg/previts", "demo", ["objective.batch_norm_groups=2"], cost=True).splitlines()[
        -4:
    ]
    assert "a training step of 32 pairs" in heading
    assert columns.split()[0] == "GPUs"
    assert [row.split()[:3] for row in rows] == [["1", "32", "1"], ["2", "16", "1"]]
    assert all(row.endswith(" 40 GB") for row in rows)
    assert show("1/random", cost=True).endswith("a training step: none, since model.frozen=true")
