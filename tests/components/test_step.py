"""What a step does around its work: exit codes, and the files that the KFP page shows."""

import pytest

from components import _step
from previts.errors import InputError
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


def test_a_file_is_copied_unchanged(tmp_path):
    data = bytes(range(256))
    (tmp_path / "report.html").write_bytes(data)
    _step.copy_file(str(tmp_path), "report.html", str(tmp_path / "page"))
    assert (tmp_path / "page").read_bytes() == data
