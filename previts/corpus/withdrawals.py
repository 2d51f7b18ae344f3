"""The ledger of withdrawn videos: what may no longer be used under a root, and why.

A withdrawal is a file of its own under `ROOT/withdrawn/`, named after the video. So two processes never overwrite each
other, in any store. `download` does not fetch a withdrawn video, and `index` leaves it out. Outputs that exist are not
changed by a withdrawal.
"""

import base64
import binascii
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from previts.errors import InputError
from previts.storage import files
from previts.storage.documents import from_json, parse_json

FOLDER = "withdrawn"
PREFIX = "withdrawn: "  # of the error of a video that was not fetched for this reason
MAX_LENGTH = 2000  # of an id or a URL, and of a reason
# The version of the hashes of frames (`media.frame_hashes`). Increase it, and that of the videos, when a hash changes.
HASHING = 2
_NAME = re.compile(r"[0-9a-f]{32}\.json")
_AGAIN = "delete it, and withdraw the video again with `previts withdraw`"


class WithdrawnError(InputError):
    """A stored video was withdrawn, and its bytes were deleted."""


@dataclass(frozen=True)
class Content:
    """What recognises copies of a stored video when its own row is gone; see `copies.Video`.

    Attributes:
        hashes: Of its frames (`media.frame_hashes`), in base64.
        hashing: Version of the hashes.
    """

    source_sha256: str
    start_seconds: float | None
    end_seconds: float | None
    hashes: str
    hashing: int = HASHING

    def frame_hashes(self) -> bytes:
        """Return the hashes; b"" if they are of another version, which cannot be compared.

        Raises:
            ValueError: If the text is not base64.
        """
        data = base64.b64decode(self.hashes, validate=True)
        return data if self.hashing == HASHING else b""


@dataclass(frozen=True)
class Withdrawal:
    """A video that may no longer be used.

    Attributes:
        video: Its id or its URL, as in a crawl.
        reason: Why it was withdrawn.
        identities: Identities of its source (`VideoRecord.identity`) when it was withdrawn: the same source under
            another id is withdrawn too.
        contents: What its stored copies showed: later indexes leave out videos that show the same.
    """

    video: str
    reason: str
    identities: list[str] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)


@dataclass(frozen=True)
class Ledger:
    """The withdrawals of a root."""

    withdrawals: tuple[Withdrawal, ...] = ()

    @functools.cached_property
    def _reasons(self) -> dict[str, str]:
        return {name: item.reason for item in self.withdrawals for name in (item.video, *item.identities)}

    def __bool__(self) -> bool:
        return bool(self.withdrawals)

    def reason(self, video_id: str, url: str = "", identity: str = "") -> str | None:
        """Return why a video was withdrawn, or None if it was not."""
        for name in (video_id, url, url.removeprefix("file://"), identity):
            if name and name in self._reasons:
                return self._reasons[name]
        return None

    def with_sources(self, rows: Iterable[tuple[str, str, str]]) -> "Ledger":
        """Return this ledger with the sources of the videos that it names, which withdraws them under other ids too.

        Args:
            rows: Videos, stored or not: id, URL and identity of each.
        """
        more = {
            identity: reason
            for video_id, url, identity in rows
            if identity and (reason := self.reason(video_id, url)) is not None
        }
        new = [Withdrawal(name, reason) for name, reason in more.items() if name not in self._reasons]
        return Ledger((*self.withdrawals, *new)) if new else self

    def check(self, videos_uri: str, video_id: str, url: str, identity: str) -> None:
        """Raise a WithdrawnError if a video, whose bytes are not those that were stored, was withdrawn."""
        if (reason := self.reason(video_id, url, identity)) is not None:
            raise WithdrawnError(
                f"video {video_id!r} of {videos_uri} was withdrawn ({reason}), and its bytes were deleted; run "
                "`previts index` again, which leaves it out, and use the new index"
            )


def check(video: str, reason: str) -> None:
    """Raise an InputError if the video or the reason is empty, too long or not a line of text."""
    for name, text in (("video", video), ("reason", reason)):
        if not text.strip() or len(text) > MAX_LENGTH or not text.isprintable():
            raise InputError(f"the {name} must be a line of 1 to {MAX_LENGTH} characters, got {text[:80]!r}")


def write(root: str, withdrawal: Withdrawal) -> Withdrawal:
    """Add a withdrawal to the ledger of a root, and return it.

    If the video is withdrawn already, its reason stays, and identities and contents that are new are added.

    Raises:
        InputError: If the video or the reason is empty, too long or not a line of text, or the one there is damaged.
    """
    check(withdrawal.video, withdrawal.reason)
    uri = uri_of(root, withdrawal.video)
    try:
        if not files.exists(uri):
            files.write_bytes(uri, _encoded(withdrawal), create=True)
    except FileExistsError:  # another process has written it meanwhile
        pass
    found = _parsed(uri, files.read_bytes(uri))
    identities = [item for item in withdrawal.identities if item not in found.identities]
    contents = [item for item in withdrawal.contents if item not in found.contents]
    if identities or contents:
        found = replace(found, identities=[*found.identities, *identities], contents=[*found.contents, *contents])
        files.write_bytes(uri, _encoded(found))
    return found


def uri_of(root: str, video: str) -> str:
    """Return the file of the withdrawal of a video; deleting it takes the withdrawal back."""
    return files.join(files.absolute(root), FOLDER, _name(video))


def content(source_sha256: str, start_seconds: float | None, end_seconds: float | None, hashes: bytes) -> Content:
    """Return what recognises copies of a stored video."""
    return Content(source_sha256, start_seconds, end_seconds, base64.b64encode(hashes).decode())


def _encoded(withdrawal: Withdrawal) -> bytes:
    return json.dumps(asdict(withdrawal), indent=1).encode() + b"\n"


def _name(video: str) -> str:
    return hashlib.sha256(video.encode()).hexdigest()[:32] + ".json"


def _parsed(uri: str, data: bytes) -> Withdrawal:
    found = from_json(Withdrawal, parse_json(data, uri, _AGAIN), uri, _AGAIN)
    if _name(found.video) != uri.rsplit("/", 1)[-1] or not found.reason:
        raise InputError(f"{uri} is not the withdrawal of {found.video[:80]!r} with a reason; {_AGAIN}")
    try:
        for item in found.contents:
            item.frame_hashes()
    except binascii.Error as error:
        raise InputError(f"{uri}: the field hashes of contents is not base64 ({error}); {_AGAIN}") from None
    return found


def read(*roots: str) -> Ledger:
    """Return the ledgers of some roots together.

    Raises:
        InputError: If a file of a ledger is damaged. A video must not be used because its withdrawal cannot be read.
    """
    found: list[Withdrawal] = []
    for root in dict.fromkeys(files.absolute(root) for root in roots):
        folder = files.join(root, FOLDER)
        uris = [files.join(folder, name) for name in files.names(folder) if _NAME.fullmatch(name)]
        found += [_parsed(uri, data) for uri, data in zip(uris, files.read_whole(uris) if uris else [], strict=True)]
    return Ledger(tuple(found))


def read_for(*uris: str, root: str = "") -> Ledger:
    """Return the ledgers that hold for some outputs: those of their roots, and that of `root`."""
    return read(*([root] if root else []), *(root_of(uri) for uri in uris))


def root_of(uri: str) -> str:
    """Return the root of an output of a stage."""
    return files.absolute(uri).rsplit("/", 2)[0]
