"""Oracle: the decisions of `addresses.py`, and random text, which may not end in anything but a decision."""

import csv
import io
import os
import random
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from previts.corpus import video_table
from previts.errors import RefusedError, VideoError
from previts.ingest import sources, url_guard
from previts.ingest.crawls import CrawlItem, read_crawl
from previts.ingest.sources import LocalFile, Reach
from previts.ingest.url_guard import WebAddress
from previts.media import normalisation

sys.path.insert(0, str(Path(__file__).parent))
from addresses import NAMES, TRUSTED_STORES, Address, addresses

VARIABLES = ("PREVITS_ALLOW_HTTP", "PREVITS_TRUSTED_HOSTS", "PREVITS_TRUSTED_STORES", "PREVITS_LOCAL_FILES")
# Text of Python and of libraries, which is no reason for a user.
RAW = re.compile(r"\w+Error\b|Traceback|\[Errno|<class|\bNone\b|0x[0-9a-f]{6}")


@pytest.fixture
def no_network(monkeypatch):
    """Answer names from a table, and fail if anything connects."""

    def answer(host, port, type):
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in NAMES[host]]

    def connect(*arguments):
        raise AssertionError(f"a decision connects to {arguments}")

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(socket.socket, "connect", connect)


def decision(item: CrawlItem) -> tuple[str, str]:
    """Return the decision about a row of a crawl, and its reason."""
    try:
        if item.fault:
            raise VideoError(item.fault)
        found = sources.source_of(item.url, item.reach)
        if isinstance(found, WebAddress):
            assert all(url_guard.is_public(address) for address in url_guard.checked_addresses(found))
        if isinstance(found, LocalFile):
            sources.open_file(found).close()
    except RefusedError as error:
        return "refused", str(error)
    except VideoError as error:
        return "failed", str(error)
    return "allowed", ""


def crawl_of(rows: list[Address], folder: Path) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("video_id", "url"), *((f"r{number}", row.url) for number, row in enumerate(rows))])
    (folder / "crawl.csv").write_text(text.getvalue(), newline="")
    return str(folder / "crawl.csv")


@pytest.mark.parametrize("seed", range(3))
def test_every_address_gets_its_decision_without_traffic(no_network, monkeypatch, tmp_path, seed):
    monkeypatch.chdir(tmp_path)  # a short path for a socket
    (tmp_path / "crawl").mkdir()
    rows = addresses(seed, tmp_path / "crawl")
    counts = Counter(row.decision for row in rows)
    assert sum(counts.values()) >= 400
    assert min(counts.values()) >= 20
    monkeypatch.setenv("PREVITS_TRUSTED_STORES", TRUSTED_STORES)
    wrong = {}
    for row, item in zip(rows, read_crawl(crawl_of(rows, tmp_path / "crawl")), strict=True):
        found, reason = decision(item)
        if found != row.decision or RAW.search(reason) or not reason.isprintable() or len(reason) > 500:
            wrong[row.url[:100]] = (row.decision, found, reason)
    assert wrong == {}, "\n".join(f"{url!r}: {what}" for url, what in wrong.items())


def test_random_text_ends_in_a_decision_and_never_reaches_a_special_address(no_network):
    chance = random.Random(0)
    pieces = [
        *"[]@:/\\?#%&=.,;!~*$'\"<>{}|^` \t\n\x00é\uff41\uff11\u3002", "://", "::", "//", "..", "%00", "%2e",
        "http", "https",
        "file", "s3", "gs",
        "127.0.0.1", "0x7f", "[::1]", "localhost", "videos.example", "inside.example", "8.8.8.8", "/etc/passwd",
        "/proc",
        "www.youtube.com", "xn--", "443", "0", "memory", "\udcff",
    ]  # fmt: skip
    reach = Reach(folders=("/nowhere",), stores=("gs://videos",))
    seen = Counter()
    for _ in range(5_000):
        start = chance.choice(["", "", "https://", "http://", "file://", "s3://"])
        url = start + "".join(chance.choices(pieces, k=chance.randrange(1, 10)))
        seen[decision(CrawlItem("a", url, None, None, "", "", "", reach))[0]] += 1
    assert set(seen) == {"allowed", "refused", "failed"}


def test_one_crawl_of_all_bad_rows_stores_its_good_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crawl").mkdir()
    normalisation.encode_video([np.full((96, 96, 3), 9 * n, np.uint8) for n in range(8)], 8, str(tmp_path / "v.mp4"))
    rows = addresses(0, tmp_path / "crawl", (tmp_path / "v.mp4").read_bytes())
    # Nothing is looked up or connected to: rows that need a name server, and hosts and stores that are allowed.
    rows = [row for row in rows if not row.named and (row.decision != "allowed" or row.local)]
    rows.sort(key=lambda row: not row.local)  # one shard with good videos starts fewer decoders
    assert len(rows) > 350
    settings = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = ["previts", "download", "--crawl", crawl_of(rows, tmp_path / "crawl"), "--root", str(tmp_path / "root")]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--profile", "demo", "--max-failure-fraction", "1"],
        capture_output=True,
        text=True,
        env=settings,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (videos,) = (tmp_path / "root" / "videos").iterdir()
    shards = len(list(videos.glob("*.parquet")))
    stored = [entry for shard in range(shards) for entry in video_table.read_shard(str(videos), shard)]
    assert len(stored) == len(rows)
    wrong = {
        row.url[:100]: (row.decision, entry.error)
        for row, entry in zip(rows, stored, strict=True)
        if (entry.status == "ok") != row.local
        or (entry.retryable and row.decision != "refused")
        or bool(entry.error) == row.local
        or RAW.search(entry.error)
        or not entry.error.isprintable()
    }
    assert wrong == {}
