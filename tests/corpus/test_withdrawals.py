"""The ledger of withdrawn videos, on the disk and in stores."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_stores import object_store

from previts.corpus import withdrawals
from previts.corpus.withdrawals import Withdrawal
from previts.errors import InputError
from previts.storage import files

WRITER = """
import sys
from previts.corpus import withdrawals
for number in range(20):
    video = f"{sys.argv[2]}{number}" if number % 2 else f"both{number}"
    withdrawals.write(sys.argv[1], withdrawals.Withdrawal(video, sys.argv[2]))
"""


def test_a_withdrawal_is_kept_once_with_its_first_reason(tmp_path: Path):
    root = str(tmp_path / "root")
    assert withdrawals.read(root).withdrawals == ()
    first = withdrawals.write(root, Withdrawal("a1", "request 7", ["i1"]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert withdrawals.write(root, Withdrawal("a1", "another")) == first == Withdrawal("a1", "request 7", ["i1"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    assert withdrawals.read(root).withdrawals == (first,)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("a1",), "r"), (("A1",), None), (("", "", ""), None), (("other", "https://x/v.mp4"), "r"),
        (("other", "https://x/v.mp4?"), None), (("other", "file:///data/v.mp4"), "r"), (("other", "/data/v.mp4"), "r"),
        (("other", "https://y", "i1"), "r"), (("i2", "https://y", "i2"), None),
    ],
)  # fmt: skip
def test_a_video_is_withdrawn_by_its_id_its_url_or_the_identity_of_its_source(asked: tuple[str, ...], expected: str):
    given = (Withdrawal("a1", "r", ["i1"]), Withdrawal("https://x/v.mp4", "r"), Withdrawal("/data/v.mp4", "r"))
    assert withdrawals.Ledger(given).reason(*asked) == expected


def test_two_processes_at_once_lose_nothing(tmp_path: Path):
    root = str(tmp_path)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, root, name]) for name in ("x", "y")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = {item.video: item.reason for item in withdrawals.read(root).withdrawals}
    odd = range(1, 20, 2)
    assert found.keys() == {*(f"{name}{n}" for name in "xy" for n in odd), *(f"both{n}" for n in range(0, 20, 2))}
    assert all(found[f"{name}{n}"] == name for name in "xy" for n in odd)
    assert [path for path in (tmp_path / "withdrawn").iterdir() if path.suffix != ".json"] == []


def test_what_another_process_wrote_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = withdrawals.write(str(tmp_path), Withdrawal("a1", "first"))
    monkeypatch.setattr(files, "exists", lambda uri: False)  # the other one came after this look
    assert withdrawals.write(str(tmp_path), Withdrawal("a1", "second")) == first


DAMAGED = [
    "{", '{"video": "a1"}', '{"video": "a2", "reason": "r"}', '{"video": 1, "reason": "r"}',
    '{"video": "a1", "reason": ""}', '{"video": "a1", "reason": "r", "more": 1}',
    '{"video": "a1", "reason": "r", "contents": [{"source_sha256": "x", "start_seconds": null, "end_seconds": null, '
    '"hashes": "no base64"}]}',
]  # fmt: skip


@pytest.mark.parametrize("change", DAMAGED)
def test_a_damaged_withdrawal_is_an_error_and_never_ignored(tmp_path: Path, change: str):
    withdrawals.write(str(tmp_path), Withdrawal("a1", "r"))
    (path,) = (tmp_path / "withdrawn").iterdir()
    path.write_text(change)
    with pytest.raises(InputError, match=rf"{path.name}.*delete it, and withdraw the video again"):
        withdrawals.read(str(tmp_path))
    with pytest.raises(InputError, match=path.name):
        withdrawals.write(str(tmp_path), Withdrawal("a1", "r"))


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "x" * 2001])
def test_only_lines_of_text_are_withdrawn(tmp_path: Path, text: str):
    with pytest.raises(InputError, match="the video must be a line"):
        withdrawals.write(str(tmp_path), Withdrawal(text, "r"))
    with pytest.raises(InputError, match="the reason must be a line"):
        withdrawals.write(str(tmp_path), Withdrawal("a1", text))
    assert not list(tmp_path.iterdir())


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path):
    withdrawals.write(str(tmp_path), Withdrawal("a1", "r"))
    (tmp_path / "withdrawn" / "notes.txt").write_text("x")
    (name,) = [path.name for path in (tmp_path / "withdrawn").glob("*.json")]
    (tmp_path / "withdrawn" / f"{name}.0a1b2c3d-{'0' * 32}.tmp").write_text("{")
    assert [item.video for item in withdrawals.read(str(tmp_path)).withdrawals] == ["a1"]


def test_the_ledger_of_memory_and_of_several_roots():
    withdrawals.write("memory://one", Withdrawal("a1", "r1"))
    withdrawals.write("memory://two", Withdrawal("a2", "r2"))
    withdrawals.write("memory://two", Withdrawal("a1", "later"))
    ledger = withdrawals.read("memory://one", "memory://two", "memory://one")
    assert len(ledger.withdrawals) == 3
    assert (ledger.reason("a2"), withdrawals.read("memory://one").reason("a2")) == ("r2", None)


@pytest.mark.parametrize("name", ["gs", "s3", "s3 without conditions"])
def test_the_ledger_of_an_object_store(name: str, monkeypatch: pytest.MonkeyPatch):
    with object_store(name, monkeypatch) as root:
        kept = [withdrawals.write(root, Withdrawal("a1", reason)).reason for reason in ("first", "second")]
        assert kept == ["first", "first"]
        withdrawals.write(root, Withdrawal("https://x/v.mp4", "url"))
        listed = {item.video: item.reason for item in withdrawals.read(root).withdrawals}
        assert listed == {"a1": "first", "https://x/v.mp4": "url"}
        assert withdrawals.read("memory://nothing").withdrawals == ()
