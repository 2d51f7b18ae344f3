"""Jobs, launchers and API servers of which one ends before the others, on a real API server."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from launching import finish, runs, until, waits
from operator_by_hand import Operator

from previts.launch import conditions, launcher
from previts.launch.cluster import connect
from previts.launch.follow import changes
from previts.launch.pytorchjob import LAUNCHER, LEASE
from previts.launch.reaper import reap

pytestmark = pytest.mark.slow


def test_a_running_job_that_does_the_same_is_adopted(place, capfd):
    made = place.create({LEASE: "2020-01-01T00:00:00+00:00"}, service_account="default")
    operator = place.run(finish(place), service_account="default")
    assert [job["metadata"]["uid"] for job in operator.seen] == [made["metadata"]["uid"]]
    assert "is adopted" in capfd.readouterr().err
    # The new launcher has renewed the lease.
    renewed = operator.job(place.name())["metadata"]["annotations"][LEASE]
    assert datetime.fromisoformat(renewed) > datetime.now(UTC)


def test_changes_continue_after_the_server_has_forgotten_the_version_of_the_watch(place):
    made = place.create()
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    server = connect()
    _, version = server.jobs(name)
    stream = changes(server, name, uid, pulse=1)
    assert next(stream)["metadata"]["uid"] == uid
    other = {"metadata": {"annotations": {"other": "change"}}}
    for _ in range(3):  # changes of another object give the server new versions
        place.plane.request("PATCH", f"/api/v1/namespaces/{place.namespace}", other)
        other["metadata"]["annotations"]["other"] += "."
    place.plane.compact()
    with pytest.raises(Exception, match=r"too old|compacted") as gone:
        list(server.watch(name, str(int(version) - 1), 1))
    assert gone.value.status == 410
    with place.operator(runs):
        assert until(lambda: next(stream).get("status"))["conditions"]
    place.plane.request("DELETE", f"{place.path()}/{name}")
    assert list(stream)[-1] is None


def test_a_launcher_continues_after_a_restart_of_the_api_server(place, capfd):
    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        operator.condition(job, "Running")
        operator.plane.kill()
        time.sleep(2)
        operator.plane.start()
        operator.plane.compact()
        finish(place)(operator, job)

    operator = place.run(script)
    assert len(operator.seen) == 1
    assert "step 2" in capfd.readouterr().err


STARTER = """
import sys
from previts.launch.app import training_app
from previts.launch.launcher import run_on_cluster
from previts.launch.options import JobOptions
from previts.processes.exits import readable_errors

with readable_errors():
    app = training_app("pretrain", 8, [], nodes=2, gpus=8, target=sys.argv[1])
    run_on_cluster(app, JobOptions(image="registry/train:1"), lambda: False)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_gets_a_signal_deletes_its_job(place, number):
    with place.operator(runs) as operator:
        starter = [sys.executable, "-c", STARTER, str(place.marker.parent)]
        process = subprocess.Popen(starter, stderr=subprocess.PIPE, text=True)
        until(lambda: operator.seen and operator.job(place.name()).get("status"))
        time.sleep(1)
        process.send_signal(number)
        output = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, output
        assert "Traceback" not in output
        until(lambda: not operator.jobs())


def test_launchers_that_start_at_the_same_time_share_one_job(place):
    starter = [sys.executable, "-c", STARTER.replace("lambda: False", "Path(sys.argv[1], 'manifest.json').exists")]
    starter[-1] = f"from pathlib import Path\n{starter[-1]}"
    with place.operator(finish(place)) as operator:
        processes = [
            subprocess.Popen([*starter, str(place.marker.parent)], stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        outputs = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len(operator.seen) == 1
    assert sum("is submitted" in text for text in outputs) == 1


def test_a_launcher_that_gets_a_signal_does_not_delete_the_job_of_another_launcher(place, capfd):
    foreign = {LEASE: (datetime.now(UTC) + timedelta(minutes=14)).isoformat(), LAUNCHER: "another"}
    with place.operator(runs) as operator:
        made = place.create(foreign)
        until(lambda: operator.job(place.name()).get("status"))
        starter = [sys.executable, "-c", STARTER, str(place.marker.parent)]
        process = subprocess.Popen(starter, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "Running" in line:
                break
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + signal.SIGTERM, output
        assert "belongs to another launcher and continues" in output
        left = operator.job(place.name())
    assert left["metadata"]["uid"] == made["metadata"]["uid"]
    assert "deletionTimestamp" not in left["metadata"]
    assert foreign.items() <= left["metadata"]["annotations"].items()


def test_the_job_of_a_killed_launcher_is_adopted_by_the_next(place):
    with place.operator(runs) as operator:
        starter = [sys.executable, "-c", STARTER, str(place.marker.parent)]
        process = subprocess.Popen(starter, stderr=subprocess.DEVNULL)
        until(lambda: operator.seen and operator.job(place.name()).get("status"))
        process.kill()
        process.wait()
    (killed,) = operator.seen
    operator = place.run(finish(place))
    assert [job["metadata"]["uid"] for job in operator.seen] == [killed["metadata"]["uid"]]


def test_leases_are_renewed_and_jobs_with_expired_leases_are_reaped(place, monkeypatch):
    old = {LEASE: "2020-01-01T00:00:00+00:00"}
    monkeypatch.setenv("KUBECONFIG", place.plane.kubeconfig("reaper", place.namespace))
    server = connect()
    monkeypatch.setenv("KUBECONFIG", place.plane.kubeconfig("launcher", place.namespace))

    def script(operator: Operator, job: dict[str, Any]) -> None:
        # As if the launcher had not renewed the lease for long. It renews the lease at the next change.
        operator.plane.request("PATCH", f"{place.path()}/{place.name()}", {"metadata": {"annotations": old}})
        for message in "abcdef":
            time.sleep(0.5)
            operator.condition(job, "Running", message)
        until(lambda: not operator.job(place.name())["metadata"]["annotations"][LEASE].startswith("2020"))
        assert reap(server, datetime.now(UTC)) == []
        finish(place)(operator, job)

    monkeypatch.setattr(launcher, "RENEWALS", 1000)
    place.run(script)
    with place.operator(runs, runs, waits) as operator:
        place.plane.request("DELETE", f"{place.path()}/{place.name()}")
        until(lambda: not operator.jobs())
        place.create(old)
        until(lambda: conditions.name(operator.job(place.name())) == "Running")
        assert reap(server, datetime.now(UTC)) == [place.name()]
        until(lambda: not operator.jobs())
        made = place.create()  # without a lease
        assert reap(server, datetime.now(UTC)) == []
        typed = {"metadata": {"annotations": {LEASE: "tomorrow"}}}
        operator.plane.request("PATCH", f"{place.path()}/{made['metadata']['name']}", typed)
        assert reap(server, datetime.now(UTC)) == []
        operator.scripts.clear()
