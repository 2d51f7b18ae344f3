"""How a run ended, as its last step tells it from the notes of the steps."""

import json

import pytest

from previts import origin
from previts.errors import InputError
from previts.runs import ends, steps
from previts.storage import files, folders


@pytest.fixture(autouse=True)
def run_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(origin.RUN, "run-1")


def report_of(root: str, **info: str) -> str:
    decided = {"benchmark": "voc07"}
    result = folders.address(root, "results", "voc07", decided)
    folders.commit(result, decided, inputs={"checkpoint": "c"}, info=info)
    uri = folders.address(root, "report", "x", {})
    folders.commit(uri, {}, inputs={"result-0": result})
    return uri


def test_a_run_is_finished_only_if_its_last_check_passed(tmp_path):
    root = str(tmp_path)
    steps.check_evaluations(report_of(root), root)
    assert steps.close_run(root).startswith("### The run finished\n")
    assert steps.close_run(root).startswith("### The run ended before its last step\n")  # the notes are read once
    with pytest.raises(InputError, match="1 of 1 evaluations failed"):
        steps.check_evaluations(report_of(str(tmp_path / "b"), failed="no images"), root)
    assert "ended before its last step" in steps.close_run(root)


def test_the_account_has_the_reasons_in_order_of_time_and_no_other_run_s(tmp_path, monkeypatch):
    root, times = str(tmp_path), iter([30.0, 10.0, 20.0])
    monkeypatch.setattr(ends.time, "time", lambda: next(times))
    ends.note(root, "fit-saliency", "third", final=True)
    ends.note(root, "videos/download-1", "first", final=True)
    monkeypatch.setenv(origin.RUN, "run-2")
    ends.note(root, "index", "of another run", final=True)
    monkeypatch.setenv(origin.RUN, "run-1")
    text = steps.close_run(root)
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- `download-1`: first",
        "- `fit-saliency`: third",
    ]
    assert "same parameters" in text
    monkeypatch.setenv(origin.RUN, "run-2")
    assert "of another run" in steps.close_run(root)
    assert not (tmp_path / ends.FOLDER).exists()


def test_a_run_that_was_stopped_or_has_no_id_says_so(tmp_path, monkeypatch):
    assert "No step noted a failure" in steps.close_run(str(tmp_path))
    monkeypatch.delenv(origin.RUN)
    ends.note(str(tmp_path), "index", "x", final=True)
    assert list(tmp_path.rglob("*.json")) == []
    assert "No step noted a failure" in steps.close_run(str(tmp_path))


def test_the_step_that_meets_strangers_cannot_claim_that_the_run_finished(tmp_path):
    root = str(tmp_path)
    ends.note(root, f"videos/{ends.LAST}", "", final=True)
    assert "ended before its last step" in steps.close_run(root)


def test_only_a_final_failure_of_this_run_some_minutes_ago_repeats(tmp_path, monkeypatch):
    root = str(tmp_path)
    assert ends.final_failure(root, "index") == ""
    ends.note(root, "index", "the store was away", final=False)
    assert ends.final_failure(root, "index") == ""
    ends.note(root, "index", "no tubes", final=True)
    assert ends.final_failure(root, "index") == "no tubes"
    assert ends.final_failure(root, "saliency-0") == ""
    monkeypatch.setenv(origin.RUN, "run-2")
    assert ends.final_failure(root, "index") == ""
    monkeypatch.setenv(origin.RUN, "run-1")
    uri = files.join(root, ends.FOLDER, "run-1", "index.json")
    older = json.loads(files.read_bytes(uri))
    files.write_json(uri, {**older, "time": older["time"] - ends.FRESH_SECONDS - 1})
    assert ends.final_failure(root, "index") == ""  # the user started the step again


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"step": "index"}'])
def test_a_broken_note_is_as_none(tmp_path, content):
    root = str(tmp_path)
    files.write_bytes(files.join(root, ends.FOLDER, "run-1", "index.json"), content)
    assert ends.final_failure(root, "index") == ""
    assert "No step noted a failure" in steps.close_run(root)
