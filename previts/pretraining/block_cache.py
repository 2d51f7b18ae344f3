"""A bounded cache of remote files on the local disk, which all processes of a machine share.

Files are kept in blocks of 1 MiB. The first blocks stay: a training that reads its corpus in random order, again and
again, gains nothing from newer ones. Files in a bucket that is cached must not change.
"""

import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from previts.storage import files

BLOCK = 1 << 20
_USED = "used"  # the file with the number of bytes that all blocks take


@dataclass(frozen=True)
class BlockCache:
    """Blocks of remote files in a folder.

    Attributes:
        folder: A folder on the local disk. It is created.
        size: Largest number of bytes of all blocks.
        version: Of the files: blocks of another version are not used.
    """

    folder: str
    size: int
    version: str

    def read_ranges(self, uri: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
        """Return ranges of bytes of a remote file as `files.read_ranges` does, and keep the blocks that contain them.

        If the folder is full or cannot be written to, the blocks are not kept.

        Raises:
            FileNotFoundError: If a block is not in the cache and the file does not exist.
        """
        return [self._read(uri, start, stop) for start, stop in zip(starts, stops, strict=True)]

    def _read(self, uri: str, start: int, stop: int) -> bytes:
        numbers = range(start // BLOCK, -(-stop // BLOCK))
        pieces = {number: self._kept(uri, number, start, stop) for number in numbers}
        missing = [number for number in numbers if pieces[number] is None]
        firsts = [number * BLOCK for number in missing]
        blocks = files.read_ranges(uri, firsts, [first + BLOCK for first in firsts]) if missing else []
        for number, block in zip(missing, blocks, strict=True):
            with contextlib.suppress(OSError):
                self._keep(self._path(uri, number), block)
            first, last = _within(number, start, stop)
            pieces[number] = block[first:last]
        return b"".join(piece or b"" for piece in pieces.values())

    def _path(self, uri: str, number: int) -> str:
        name = hashlib.sha256(f"{self.version}\n{uri}".encode()).hexdigest()[:32]
        return os.path.join(self.folder, name, str(number))

    def _kept(self, uri: str, number: int, start: int, stop: int) -> bytes | None:
        """Return what a block has of a range of its file; None if the block is not kept as a whole."""
        first, last = _within(number, start, stop)
        try:
            with open(self._path(uri, number), "rb", buffering=0) as file:
                data = os.pread(file.fileno(), last - first, first)
        except OSError:
            return None
        return data if len(data) == last - first else None  # after a loss of power, a file can be shorter

    def _keep(self, path: str, block: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path) or not self._reserve(len(block)):
            return
        temporary = f"{path}-{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(block)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise

    def _reserve(self, size: int) -> bool:
        """Return whether there is room for so many bytes, and count them; a damaged count leaves no room."""
        file = os.open(os.path.join(self.folder, _USED), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = os.pread(file, 100, 0)
            used = self.size if text and not text.isdigit() else int(text or 0)
            if used + size > self.size:
                return False
            os.pwrite(file, b"%020d" % (used + size), 0)  # of one length, so that it is never cut for a moment
        finally:
            os.close(file)
        return True


def _within(number: int, start: int, stop: int) -> tuple[int, int]:
    """Return the part [first, last) of a block that a range of its file covers."""
    return max(0, start - number * BLOCK), min(BLOCK, stop - number * BLOCK)
