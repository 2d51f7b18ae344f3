"""Byte ranges of a batch of clips, requested together: a bucket takes longer to answer than a clip to decode."""

import bisect
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from previts.storage import files

REQUESTS = 64  # threads of a pool: each waits for an answer and hardly uses a core

# A bucket sends this many bytes about as fast as it answers another request.
MAX_GAP = 1 << 20
# Ranges of a small corpus are all near each other. A clip would wait for the bytes of all others.
MAX_BLOCK = 8 << 20


def request(
    wanted: Sequence[files.Ranges], pool: ThreadPoolExecutor, read_remote: files.Read = files.read_ranges
) -> files.Read:
    """Let a pool request ranges by `read_remote`, and return the function that reads them.

    That function waits for the answer, and raises the error of the request. Requests are sent in the order of `wanted`.
    Ranges of a file with at most `MAX_GAP` bytes between them are one request, of at most `MAX_BLOCK` bytes if no range
    is longer. Files on the local disk are read when the function is called.
    """
    remote = [each for each in wanted if files.protocol(each.uri) not in files.ON_DISK]
    if not remote:
        return files.read_ranges
    blocks = _merged(remote)
    answers: dict[tuple[str, int], Future[list[bytes]]] = {}

    def block_of(uri: str, start: int) -> tuple[int, int]:
        return blocks[uri][bisect.bisect_right(blocks[uri], start, key=lambda block: block[0]) - 1]

    for uri, starts, _ in remote:
        for start in starts:
            first, last = block_of(uri, start)
            if (uri, first) not in answers:
                answers[uri, first] = pool.submit(read_remote, uri, [first], [last])

    def read(uri: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
        found = []
        for start, stop in zip(starts, stops, strict=True):
            first, _ = block_of(uri, start)
            (data,) = answers[uri, first].result()
            found.append(data[start - first : stop - first])
        return found

    return read


def _merged(wanted: Sequence[files.Ranges]) -> dict[str, list[tuple[int, int]]]:
    """Return for each file the blocks [start, stop) that contain its ranges, ascending."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for uri, starts, stops in wanted:
        ranges.setdefault(uri, []).extend(zip(starts, stops, strict=True))
    blocks: dict[str, list[tuple[int, int]]] = {}
    for uri, found in ranges.items():
        merged = blocks.setdefault(uri, [])
        for start, stop in sorted(found):
            first, last = merged[-1] if merged else (start, start)
            if merged and start - last <= MAX_GAP and (stop <= last or stop - first <= MAX_BLOCK or start == first):
                merged[-1] = (first, max(last, stop))
            else:
                merged.append((start, stop))
    return blocks
