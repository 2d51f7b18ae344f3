"""Oracle: the next verb refuses a changed file with a message, and no output appears at the address that it would have.

Each test changes one file in a copy of a finished root. The copy shares the files by hard links, so a changed file is
replaced, never written to.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_verbs import SMALL

from previts import stages
from previts.errors import InputError
from previts.storage import folders

ROW = "1/vgg/previts"
EVERY = [*SMALL, "saliency.every=5"]  # settings with which a verb has not run yet
AGE = [*SMALL, "track.max_age=3"]
SHORT = [*SMALL, "filter.min_tube_seconds=0.01"]


@pytest.fixture
def copy(made: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The outputs of all verbs in another root."""
    shutil.copytree(made["root"], tmp_path / "root", copy_function=os.link)
    return {name: uri.replace(made["root"], str(tmp_path / "root")) for name, uri in made.items()}


def replace_file(path: str | Path, data: bytes) -> None:
    Path(path).unlink()
    Path(path).write_bytes(data)


def committed(root: str) -> set[Path]:
    return set(Path(root).rglob("manifest.json"))


def refuses(at: dict[str, str], verb: Callable[[], str], message: str) -> None:
    before = committed(at["root"])
    with pytest.raises(InputError, match=message):
        verb()
    assert committed(at["root"]) == before


def saliency(at: dict[str, str]) -> str:
    return stages.saliency(at["videos"], at["model"], at["root"], "demo", EVERY)


def track(at: dict[str, str]) -> str:
    return stages.track(at["videos"], at["saliency"], at["root"], "demo", AGE)


def index(at: dict[str, str]) -> str:
    return stages.index(at["videos"], at["tubes"], at["root"], "demo", SHORT)


def pretrain(at: dict[str, str], *more: str) -> str:
    return stages.pretrain("1/vgg/moco", at["index"], at["root"], "demo", [*SMALL, *more])


def evaluate(at: dict[str, str]) -> str:
    return stages.evaluate(
        ROW, "davis", at["checkpoint"], at["data"], at["root"], "demo", [*SMALL, "evaluation.seed=9"]
    )


def report(at: dict[str, str]) -> str:
    return stages.report([ROW], at["index"], [at["result"]], at["root"], "demo", SMALL)


@pytest.mark.parametrize(
    ("stage", "verb"),
    [("videos", saliency), ("videos", track), ("videos", index), ("saliency", track), ("tubes", index)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_table_of_another_shard_is_refused(copy, stage, verb):
    folder = Path(copy[stage])
    replace_file(folder / "shard-00000.parquet", (folder / "shard-00001.parquet").read_bytes())
    refuses(copy, lambda: verb(copy), r"shard-00000\.parquet was changed after manifest\.json was written; delete both")
    # Also before the folder is finished.
    (folder / "manifest.json").unlink()
    if (stage, verb) == ("saliency", track):  # it may start before saliency is finished
        refuses(copy, lambda: verb(copy), r"shard-00000\.parquet is a copy of \w+/shard-00001\.parquet; delete it")


def test_the_tar_of_another_shard_is_refused(copy):
    folder = Path(copy["videos"])
    replace_file(folder / "shard-00000.tar", (folder / "shard-00001.tar").read_bytes())
    refuses(copy, lambda: saliency(copy), r"shard-00000\.tar .* the bytes differ from those that were stored")


def test_a_folder_in_place_of_a_tar_is_refused(copy):
    path = Path(copy["videos"]) / "shard-00000.tar"
    path.unlink()
    path.mkdir()
    refuses(copy, lambda: saliency(copy), r"shard-00000\.tar is a folder, expected a file; .*`previts download` again")


def test_training_stops_at_the_tubes_of_other_shards(copy):
    folder = Path(copy["tubes"])
    blobs = sorted(folder.glob("*.tubes"))
    data = [blob.read_bytes() for blob in blobs]
    for blob, other in zip(blobs, [*data[1:], data[0]], strict=True):
        replace_file(blob, other)
    refuses(
        copy,
        lambda: stages.pretrain("6b/mu=0.2", copy["index"], copy["root"], "demo", SMALL),
        "videos of the corpus are damaged",
    )


def edit(uri: str, sealed: bool, **changes: object) -> None:
    """Change fields of a manifest, with or without its checksum."""
    path = Path(uri) / "manifest.json"
    document = {**json.loads(path.read_text()), **changes}
    if sealed:
        rest = {key: value for key, value in document.items() if key != "checksum"}
        canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        document["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    replace_file(path, json.dumps(document).encode())


@pytest.mark.parametrize("sealed", [False, True], ids=["edited", "sealed"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": {"shards": 0}}, r"counts\.shards must be the number of tables that it lists"),
        ({"counts": {"shards": "x"}}, r"counts\.shards must be a whole number or a number, got 'x'"),
        ({"counts": None}, r"counts must be an object, got None"),
        ({"inputs": []}, r"inputs must be an object, got \[\]"),
        ({"decided": {}}, "belongs to another folder"),
        ({"fingerprint": "0123456789ab"}, "belongs to another folder"),
        ({"stage": "tubes"}, "is an output of stage 'tubes'|belongs to another folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_edited_manifest_is_refused_and_its_own_stage_writes_it_again(copy, capsys, sealed, changes, message):
    edit(copy["videos"], sealed, **changes)
    refuses(copy, lambda: saliency(copy), message if sealed else f"{message}|was changed after it was written")
    if not sealed or "counts" not in changes:
        assert stages.download(copy["crawl"], copy["root"], "demo", SMALL) == copy["videos"]
        assert "it is made again" in capsys.readouterr().err
        folders.read_manifest(copy["videos"])


def test_empty_tubes_at_the_true_address_are_refused(copy):
    manifest = folders.read_manifest(copy["tubes"])
    folders.commit(copy["tubes"], manifest.decided, inputs=manifest.inputs, counts={"shards": 0})
    refuses(copy, lambda: index(copy), r"counts\.shards must be the number of tables that it lists, 0, and at least 1")


@pytest.mark.parametrize("kind", ["another model", "a pickle"])
def test_a_model_that_is_replaced_together_with_its_checksum_is_refused(copy, kind):
    folder = Path(copy["checkpoint"])
    data = pickle.dumps({"a": 1}) if kind == "a pickle" else (folder / "encoder.pt").read_bytes()
    name, place = "model.pt", (folder / "model.pt.sha256").read_text().split()[1:]
    replace_file(folder / name, data)
    replace_file(folder / f"{name}.sha256", "  ".join([hashlib.sha256(data).hexdigest(), *place]).encode())
    refuses(copy, lambda: evaluate(copy), r"model\.pt was changed after manifest\.json was written; delete both")


def test_another_encoder_is_refused_as_weights(copy):
    folder = Path(copy["checkpoint"])
    replace_file(folder / "encoder.pt", (folder / "model.pt").read_bytes())
    refuses(
        copy, lambda: pretrain(copy, f"model.weights={folder}"), r"encoder\.pt was changed after manifest\.json was"
    )


def test_another_index_is_refused(copy):
    other = index(copy)
    replace_file(Path(copy["index"]) / "index.parquet", (Path(other) / "index.parquet").read_bytes())
    refuses(copy, lambda: pretrain(copy), r"index\.parquet was changed after manifest\.json was written; delete both")


@pytest.mark.parametrize(("stage", "name"), [("result", "result.json"), ("checkpoint", "log.jsonl")])
def test_numbers_that_were_edited_are_not_reported(copy, stage, name):
    path = Path(copy[stage]) / name
    replace_file(path, path.read_bytes().replace(b"0.", b"0.9", 1))
    refuses(copy, lambda: report(copy), rf"{name} was changed after manifest\.json was written; delete both")


HUGE, NAN = 2**61, float("nan")
SHARD = "shard-00000.parquet"
# By stage, the verb that reads its table, and by column values that no stage writes.
ABSURD: dict[str, tuple[str, Callable[[dict[str, str]], str], dict[str, list[object]]]] = {
    "videos": (SHARD, saliency, {
        "status": ["done"], "shard": [-1], "offset": [-HUGE, None, -1], "size": [-1, 0], "height": [-96, 0, HUGE],
        "width": [None], "num_frames": [-1, 0, HUGE, None], "fps": [-1.0, 0.0, 1e300, NAN, None], "header": [None],
        "gop_frames": [[], [5, 1], None, [None]], "gop_offsets": [[], [HUGE, 0], None], "gop_crcs": [[], [-1], None],
        "missing_seconds": [NAN],
    }),
    "saliency": (SHARD, track, {
        "video_id": ["another", None], "frame": [-1, 3, HUGE, None], "height": [-96, 95, None], "width": [HUGE],
        "regions": [[[]], [[-1, 12289]], [[HUGE]], [None], [[None]], None], "agreement": [NAN, -1.0, 2.0],
    }),
    "tubes": (SHARD, index, {
        "video_id": ["another", None], "status": ["done", None], "tracked_frames": [-1, 3, None],
        "spans": [[], [[0, HUGE]], [[5, 2]], [[0, 10], [5, 12]], [[1, 2, 3]], [None], [[None, 3]], None],
        "mean_area": [-1.0, NAN, None], "offset": [-1, None], "size": [-1, None], "crc": [-1], "lost_frame": [-1, HUGE],
        "border_share": [2.0], "agreement": [NAN],
    }),
    "index": ("index.parquet", pretrain, {
        "video_id": [None], "split": [None], "offset": [-1], "size": [0], "height": [-96, 0, HUGE], "fps": [0.0, NAN],
        "num_frames": [0, HUGE, None], "gop_offsets": [[]], "spans": [[[0, HUGE]], [[1, 2, 3]]], "tube_offset": [-1],
    }),
}  # fmt: skip


def edit_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table and write its checksum into the manifest next to it, as somebody could who edits both."""
    buffer = io.BytesIO()
    pq.write_table(change(pq.ParquetFile(path).read()), buffer)
    replace_file(path, buffer.getvalue())
    document = json.loads((path.parent / "manifest.json").read_text())
    files = {**document["files"], path.name: hashlib.sha256(buffer.getvalue()).hexdigest()}
    edit(str(path.parent), sealed=True, files=files)


def with_value(table: pa.Table, column: str, value: object) -> pa.Table:
    """Return a table whose first row has another value."""
    place = table.schema.get_field_index(column)
    values = pa.array([value, *table.column(column).to_pylist()[1:]], type=table.schema.field(column).type)
    return table.set_column(place, table.schema.field(column), values)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "column"), [(stage, column) for stage in ABSURD for column in ABSURD[stage][2]])
def test_values_that_no_stage_writes_are_refused_although_table_and_manifest_fit(copy, stage, column):
    name, verb, columns = ABSURD[stage]
    path = Path(copy[stage]) / name
    sound, manifest = path.read_bytes(), (path.parent / "manifest.json").read_bytes()
    for value in columns[column]:
        edit_table(path, lambda table, value=value: with_value(table, column, value))
        refuses(copy, lambda: verb(copy), rf"{name}|has (1 videos|\d+ masks)|do(es)? not belong")
        replace_file(path, sound)
        replace_file(path.parent / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("stage", "name", "verb"),
    [("saliency", SHARD, track), ("tubes", SHARD, index), ("index", "index.parquet", pretrain)],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("change", ["fewer", "twice"])
def test_tables_with_fewer_rows_or_one_row_twice_are_refused(copy, stage, name, verb, change):
    def changed(table: pa.Table) -> pa.Table:
        return table.slice(1) if change == "fewer" else pa.concat_tables([table, table.slice(0, 1)])

    edit_table(Path(copy[stage]) / name, changed)
    refuses(copy, lambda: verb(copy), "its manifest says|masks of sizes|in several places|have no tube")


def test_a_corpus_with_fewer_rows_than_its_manifest_counts_is_not_indexed(copy):
    for stage in ("videos", "tubes"):
        edit_table(Path(copy[stage]) / SHARD, lambda table: table.slice(1))
    refuses(copy, lambda: index(copy), r"usable videos, its manifest\.json says")


@pytest.mark.parametrize("column", ["height", "width", "num_frames"])
def test_an_index_whose_sizes_are_not_those_of_the_stored_videos_trains_nothing(copy, column):
    path = Path(copy["index"]) / "index.parquet"

    def larger(table: pa.Table) -> pa.Table:
        place, field = table.schema.get_field_index(column), table.schema.field(column)
        return table.set_column(place, field, pa.array([value + 2 for value in table.column(column).to_pylist()]))

    edit_table(path, larger)
    # With tracking; the frames of each video are compared with its row, and so is each tube.
    verb = lambda: stages.pretrain("6b/mu=0.2", copy["index"], copy["root"], "demo", SMALL)  # noqa: E731
    refuses(copy, verb, r"videos of the corpus are damaged.*its row says")


def test_an_index_whose_spans_show_an_empty_part_of_the_tube_trains_nothing(copy):
    path = Path(copy["index"]) / "index.parquet"

    def everywhere(table: pa.Table) -> pa.Table:
        for column, values in (
            ("spans", [[[0, frames]] for frames in table.column("num_frames").to_pylist()]),
            ("tracked_frames", table.column("num_frames").to_pylist()),
        ):
            place, field = table.schema.get_field_index(column), table.schema.field(column)
            table = table.set_column(place, field, pa.array(values, type=field.type))
        return table

    before = pq.ParquetFile(path).read()
    tracked, frames = (before[name].to_pylist() for name in ("tracked_frames", "num_frames"))
    hidden = [shown < whole for shown, whole in zip(tracked, frames, strict=True)]
    assert any(hidden)
    edit_table(path, lambda table: everywhere(table).filter(pa.array(hidden)))
    edit(copy["index"], sealed=True, counts={"videos": sum(hidden), "videos_with_tube": sum(hidden)})
    settings = [*SMALL, "optim.epochs=30", "optim.batch_size=2"]
    verb = lambda: stages.pretrain("6b/mu=0.2", copy["index"], copy["root"], "demo", settings)  # noqa: E731
    refuses(copy, verb, "says that the object is visible in frame .* is empty there")


def test_an_index_of_the_videos_of_another_root_is_refused(copy):
    other = stages.download(copy["crawl"], copy["root"], "demo", [*SMALL, "video.crf=30"])
    edit(copy["index"], sealed=True, inputs={"videos": other, "tubes": copy["tubes"]})
    refuses(copy, lambda: pretrain(copy), "does not name the videos that the index was made of")


PLACES: list[tuple[str, str, Callable[[dict[str, str]], str]]] = [
    ("model", "manifest.json", saliency),
    ("saliency", SHARD, track),
    ("tubes", SHARD, index),
    ("index", "index.parquet", pretrain),
    ("index", "manifest.json", pretrain),
    ("checkpoint", "model.pt", evaluate),
    ("checkpoint", "model.pt.sha256", evaluate),
    ("checkpoint", "experiment.json", report),
    ("checkpoint", "log.jsonl", report),
    ("checkpoint", "encoder.pt", lambda at: pretrain(at, f"model.weights={at['checkpoint']}")),
    ("result", "result.json", report),
]


@pytest.mark.parametrize(("stage", "name", "verb"), PLACES, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_a_folder_a_pipe_or_a_loop_of_links_in_place_of_a_file_is_named(copy, stage, name, verb, kind):
    path = Path(copy[stage]) / name
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
    what = {"folder": "a folder", "loop": "a link that leads to itself", "pipe": "a pipe or a device"}[kind]
    refuses(copy, lambda: verb(copy), rf"{name} is {what}, expected a file|names .*, and it is {what}")


@pytest.mark.parametrize("name", [SHARD, "index.parquet"])
def test_a_stage_does_not_write_over_a_folder(copy, name):
    stage = "saliency" if name == SHARD else "index"
    folder = Path(copy[stage])
    for path in (folder / "manifest.json", folder / name):
        path.unlink()
    (folder / name).mkdir()

    def again() -> str:
        if stage == "index":
            return stages.index(copy["videos"], copy["tubes"], copy["root"])
        return stages.saliency(copy["videos"], copy["model"], copy["root"], "demo", SMALL)

    refuses(copy, again, rf"{name} is a folder, expected a file; delete it")


def test_a_damaged_table_of_an_unfinished_folder_is_named_when_the_folder_is_finished(copy):
    folder = Path(copy["saliency"])
    (folder / "manifest.json").unlink()
    replace_file(folder / SHARD, (folder / SHARD).read_bytes()[:-20])
    again = lambda: stages.saliency(copy["videos"], copy["model"], copy["root"], "demo", SMALL)  # noqa: E731
    refuses(copy, again, rf"{SHARD} is damaged \(.*; delete it")
