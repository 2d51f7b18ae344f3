"""What cluster.sh asks gcloud for; a program that writes down its arguments takes the place of gcloud."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from components import _google_token
from previts.corpus import withdrawals
from previts.ingest import crawls

ROOT = Path(__file__).parents[2]
GKE = ROOT / "k8s" / "overlays" / "gke"
GCLOUD = """#!/usr/bin/env bash
printf '%s\\n' "$(printf '%q ' "$@")" >> "$CALLS"
case " $* " in
  *" projects describe "*) echo 42 ;;
  *" describe "*) exit "${KNOWN:-1}" ;;
esac
"""


def run(folder: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a copy of cluster.sh, and return the process and the calls of gcloud."""
    shutil.copytree(GKE, folder / "gke")
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    given = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(folder / "calls"), "PROJECT": "p", **environment}
    script = str(folder / "gke" / "cluster.sh")
    done = subprocess.run(["bash", script], env=given, capture_output=True, text=True, check=False)
    calls = (folder / "calls").read_text() if (folder / "calls").exists() else ""
    return done, calls.splitlines()


@pytest.mark.parametrize("known", ["0", "1"])  # whether the resources exist already
def test_only_named_addresses_reach_the_api_server(tmp_path: Path, known: str):
    done, calls = run(tmp_path, ADMINS="203.0.113.7/32", KNOWN=known)
    assert done.returncode == 0, done.stderr
    (last,) = [call for call in calls if "container clusters update" in call]
    created = [call for call in calls if "container clusters create" in call]
    assert len(created) == int(known)
    for call in [last, *created]:
        assert "--enable-master-authorized-networks --master-authorized-networks 203.0.113.7/32" in call
    assert "--no-enable-google-cloud-access" in last


@pytest.mark.parametrize("admins", ["", "0.0.0.0/0", "203.0.113.7/32,0.0.0.0/0", "::/0"])
def test_the_api_server_is_never_open_to_all(tmp_path: Path, admins: str):
    done, calls = run(tmp_path, ADMINS=admins)
    assert done.returncode
    assert "ADMINS" in done.stderr
    assert not calls


def test_google_takes_tokens_of_the_download_account_alone_and_only_those_for_google(tmp_path: Path):
    done, calls = run(tmp_path, ADMINS="203.0.113.7/32")
    assert done.returncode == 0, done.stderr
    (made,) = [call.replace("\\", "") for call in calls if "providers create-oidc" in call]
    written = json.loads((tmp_path / "gke" / "credentials.json").read_text())
    subject = f"system:serviceaccount:previts:{_google_token.ACCOUNT}"
    assert f"--allowed-audiences https:{written['audience']} " in made
    assert f"assertion.sub == '{subject}'" in made
    assert "projects/42/" in written["audience"]


def test_the_download_step_reads_crawls_and_writes_videos_and_nothing_else_in_the_bucket(tmp_path: Path):
    _, calls = run(tmp_path, ADMINS="203.0.113.7/32")
    bound = [call.replace("\\", "") for call in calls if "buckets add-iam-policy-binding" in call]
    found = {
        (
            re.search(r"--member \S+[/:](\S+)", call)[1],
            re.search(r"roles/(\S+)", call)[1],
            call.split("--condition ")[1],
        )
        for call in bound
    }
    of_download = {(role, condition.strip()) for member, role, condition in found if member == _google_token.ACCOUNT}
    objects = "projects/_/buckets/p-previts/objects"
    assert of_download == {
        ("storage.legacyBucketReader", "None"),
        *(
            (
                role,
                f"title={folder},expression=resource.name.startsWith('{objects}/') && "
                f"resource.name.extract('/{folder}/{{name}}') != ''",
            )
            # The names below a root are those of the code: the lists of crawls, the withdrawals and the videos.
            for role, folder in (
                ("storage.objectViewer", crawls.LISTS),
                ("storage.objectViewer", withdrawals.FOLDER),
                ("storage.objectUser", "videos"),
            )
        ),
    }
    whole = {
        member for member, role, condition in found if role == "storage.objectUser" and condition.strip() == "None"
    }
    assert whole == {"previts-steps", "previts-training"}
