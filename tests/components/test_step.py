"""What a step does around its work: exit codes, and the files that the KFP page shows."""

import pytest

from components import _step
from previts import origin
from previts.errors import InputError, TemporaryError
from previts.stages import outputs
from previts.storage import folders


def test_a_stage_is_described_and_its_counts_become_metrics(tmp_path):
    uri, summary = str(tmp_path / "index" / "a-0"), tmp_path / "summary.md"
    folders.commit(uri, {}, counts={"videos": 3, "videos_with_tube": 2})
    metrics: dict[str, object] = {}
    assert _step.run_stage(lambda: uri, str(summary), metrics) == uri
    assert summary.read_text() == outputs.describe(uri)
    assert metrics == {"videos": 3, "videos_with_tube": 2}


@pytest.mark.parametrize(("error", "code"), [(InputError("no videos in a"), 2), (OSError("disk is full"), 1)])
def test_a_user_error_ends_the_step_with_a_message_and_a_code(tmp_path, capsys, error, code):
    def work() -> str:
        raise error

    for run in (_step.run, lambda work: _step.run_stage(work, str(tmp_path / "summary.md"))):
        with pytest.raises(SystemExit) as end:
            run(work)
        assert end.value.code == code
        assert capsys.readouterr().err.endswith(f"{error}\n")


class Work:
    """Fails with each of some errors in turn, and then returns a URI."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "uri"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the process a pod of a pipeline run, and return the pauses that it makes instead of waiting."""
    made = list[float]()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv(origin.RUN, "run-1")
    monkeypatch.setattr(_step.time, "sleep", made.append)
    return made


def test_an_outage_is_waited_for_inside_the_step(tmp_path, pauses, capsys):
    work = Work(ConnectionError("the store is away"), TimeoutError("it is slow"), TemporaryError("a process met it"))
    assert _step.run(work, root=str(tmp_path), name="index") == "uri"
    assert pauses == list(_step.PAUSES)
    assert capsys.readouterr().err.count("The step is repeated in") == 3


def test_an_outage_that_lasts_ends_the_step_and_another_attempt_may_succeed(tmp_path, pauses):
    work = Work(*[ConnectionError("the store is away")] * 4)
    with pytest.raises(SystemExit) as end:
        _step.run(work, root=str(tmp_path), name="index")
    assert (end.value.code, work.calls) == (1, 4)
    assert _step.run(work, root=str(tmp_path), name="index") == "uri"


@pytest.mark.parametrize("error", [InputError("no crawl at x"), FileNotFoundError("x"), PermissionError("x")])
def test_what_does_not_pass_is_not_repeated(tmp_path, pauses, error):
    work = Work(error)
    with pytest.raises(SystemExit):
        _step.run(work, root=str(tmp_path), name="check-run")
    assert (pauses, work.calls) == ([], 1)


def test_another_attempt_after_wrong_input_ends_at_once_with_the_same_message(tmp_path, pauses, capsys):
    root = str(tmp_path)
    for name in ("download-0", "download-1"):
        with pytest.raises(SystemExit) as end:
            _step.run(Work(InputError(f"no videos in {name}")), root=root, name=name)
        assert end.value.code == 2
    capsys.readouterr()
    for _ in range(2):
        again = Work()
        with pytest.raises(SystemExit) as end:
            _step.run_stage(again, str(tmp_path / "summary.md"), root=root, name="download-1")
        assert (end.value.code, again.calls) == (2, 0)
        printed = capsys.readouterr().err
        assert printed.startswith("previts: no videos in download-1\n")
        assert printed.count("earlier attempt") == 1


def test_a_root_that_cannot_be_written_hides_no_failure(tmp_path, pauses, capsys):
    with pytest.raises(SystemExit) as end:
        _step.run(Work(InputError("no videos")), root="/dev/null/root", name="index")
    assert end.value.code == 2
    assert "previts: no videos" in capsys.readouterr().err


def test_nothing_is_repeated_on_the_machine_of_a_user(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    work = Work(ConnectionError("the store is away"))
    with pytest.raises(SystemExit):
        _step.run(work, root=str(tmp_path), name="index")
    assert work.calls == 1


def test_a_file_is_copied_unchanged(tmp_path):
    data = bytes(range(256))
    (tmp_path / "report.html").write_bytes(data)
    _step.copy_file(str(tmp_path), "report.html", str(tmp_path / "page"))
    assert (tmp_path / "page").read_bytes() == data
