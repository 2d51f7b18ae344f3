"""Withdraw videos: record it in the ledger of a root, and find what rests on them.

Each manifest below the root is read once, each table of videos once, and the table of each index once. `erasure.py`
deletes the bytes of the videos.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from previts import erasure
from previts.config import paper
from previts.config.fields import flatten
from previts.corpus import index_table, left_out, members, video_table, withdrawals
from previts.corpus.copies import Video
from previts.corpus.index_table import IndexRecord
from previts.corpus.video_table import VideoRecord
from previts.corpus.withdrawals import Content, Ledger, Withdrawal
from previts.corpus.withdrawn_videos import withdrawn_ids
from previts.erasure import Stored
from previts.errors import InputError
from previts.storage import files, folders, tables
from previts.storage.fingerprints import plain
from previts.storage.folders import Manifest

STAGES = ("videos", "saliency_model", "saliency", "tubes", "index", "checkpoints", "results", "report")
RESTING = ("index", "checkpoints", "results", "report", "saliency_model")  # shown in this order
NAMES = {"checkpoints": "checkpoint", "results": "result", "saliency_model": "saliency model"}
_COLUMNS = ["video_id", "url", "identity", "status", "shard", "offset", "size"]
_CONTENT = ["source_sha256", "start_seconds", "end_seconds", "hashes"]
_AT_ONCE = 32


@dataclass
class Survey:
    """What is below a root.

    Attributes:
        finished: Manifests of the finished outputs, by URI.
        unfinished: URIs of the other outputs.
        problems: What could not be read, each as a sentence.
    """

    root: str
    finished: dict[str, Manifest] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def of(self, stage: str) -> dict[str, Manifest]:
        """Return the finished outputs of a stage."""
        return {uri: manifest for uri, manifest in self.finished.items() if manifest.stage == stage}


@dataclass(frozen=True)
class Resting:
    """An output that rests on withdrawn videos; `remade` is the address of an index without them."""

    uri: str
    stage: str
    videos: list[str]
    manifest: Manifest
    remade: str = ""


def withdraw(videos: Sequence[str], root: str, reason: str, *, purge: bool = False) -> str:
    """Withdraw videos, and return what was recorded, what rests on them, and what to run next.

    Raises:
        InputError: If a text is not allowed, a file of the ledger is damaged, or something could not be erased.
    """
    if not videos:
        raise InputError("no video was given; give ids or URLs as they are in the crawl")
    root = files.absolute(root)
    if not files.exists(root):
        raise InputError(f"root {root} does not exist; give the root of the outputs, as for `previts download`")
    for video in videos:
        withdrawals.check(video, reason)
    withdrawals.read(root)
    found = survey(root)
    copies = list(_video_tables(found))
    for video in videos:
        _check_whole(video, copies)
    given = Ledger(tuple(Withdrawal(video, reason) for video in videos))
    lines, contents = [], list[Content]()
    stored: dict[Stored, str] = {}  # each with the video that the user gave
    for video in dict.fromkeys(videos):
        alone = Ledger((Withdrawal(video, reason),))
        identities = sorted({row.identity for row in _matching(copies, alone) if row.identity})
        recorded = withdrawals.write(root, Withdrawal(video, reason, identities))
        matched = [row for row in _matching(copies, Ledger((recorded,))) if row.status == "ok"]
        recorded = withdrawals.write(root, replace(recorded, contents=_contents(matched)))
        contents += recorded.contents
        stored |= dict.fromkeys(matched, video)
        known = f"{len(matched)} stored" if matched else "none stored under this root (check the spelling)"
        lines.append(f"withdrawn: {video} ({recorded.reason}); {known}; recorded in {withdrawals.uri_of(root, video)}")
    resting = list(rests_on(found, list(stored), given, withdrawals.read(root)))
    lines += _listing(resting)
    if purge:
        lines += ["", *erasure.erase(root, list(stored), resting_uris(resting), found)]
        if kept := _copies(copies, withdrawals.read(root), contents, found):
            lines.append(
                f"{len(kept)} copies are stored under other ids: {', '.join(kept)}; "
                "withdraw them too to delete their bytes"
            )
    lines += ["", *_next(resting, root, found)]
    if found.problems:
        said = "\n".join(f"  {problem}" for problem in found.problems)
        raise InputError("\n".join([*lines, "", f"not everything could be done:\n{said}"]))
    return "\n".join(lines).rstrip()


def survey(root: str) -> Survey:
    """Return what is below a root; each manifest is read once, and a damaged one is a problem."""
    found = Survey(root)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = pool.map(lambda stage: [files.join(root, stage, name) for name in names(root, stage)], STAGES)
        uris = [uri for some in listed for uri in some]
        for uri, manifest in zip(uris, pool.map(_manifest, uris), strict=True):
            if isinstance(manifest, Manifest):
                found.finished[uri] = manifest
            else:
                found.unfinished.append(uri)
                found.problems += [manifest] if manifest else []
    return found


def names(root: str, stage: str) -> list[str]:
    """Return the names of the folders of a stage."""
    return [name for name in files.names(files.join(root, stage)) if not name.startswith(".")]


def _manifest(uri: str) -> Manifest | str:
    try:
        return folders.read_manifest(uri)
    except folders.UnfinishedError:
        return ""
    except InputError as error:
        return str(error)


def _video_tables(found: Survey) -> Iterator[tuple[str, pa.Table]]:
    """Yield the columns that identify a video, of each table of videos, also of outputs that are not finished."""
    for uri in [*found.of("videos"), *(uri for uri in found.unfinished if uri.rsplit("/", 2)[-2] == "videos")]:
        listed = found.finished[uri].files if uri in found.finished else files.names(uri)
        for name in sorted(name for name in listed if re.fullmatch(r"shard-\d+\.parquet", name)):
            try:
                yield uri, tables.read_table(files.join(uri, name), VideoRecord).select(_COLUMNS)
            except InputError as error:
                found.problems.append(str(error))


def _matching(copies: Iterable[tuple[str, pa.Table]], ledger: Ledger) -> Iterator[Stored]:
    names = pa.array([name for item in ledger.withdrawals for name in (item.video, *item.identities)], pa.string())
    for uri, table in copies:
        for row in table.filter(_among(table, names)).to_pylist():
            yield Stored(uri, **row)


def _check_whole(video: str, copies: Sequence[tuple[str, pa.Table]]) -> None:
    """Raise an InputError if a video is only the end of the URL of one: another crawl may mean another video by it."""
    if next(_matching(copies, Ledger((Withdrawal(video, ""),))), None):
        return
    for _, table in copies:
        if meant := table.filter(pc.ends_with(table.column("url"), "/" + video)).to_pylist():
            raise InputError(
                f"{video!r} is only the end of a URL, and nothing was withdrawn; give the id of the video, "
                f"{meant[0]['video_id']!r}, or its whole URL, {meant[0]['url']}"
            )


def _contents(stored: Sequence[Stored]) -> list[Content]:
    """Return what recognises copies of stored videos, without repetition."""
    ids: dict[tuple[str, int], set[str]] = {}
    for copy in stored:
        ids.setdefault((copy.videos, copy.shard), set()).add(copy.video_id)
    return list(
        dict.fromkeys(
            withdrawals.content(*(row[name] for name in _CONTENT))
            for (videos, shard), inside in ids.items()
            for row in video_table.read_stored(videos, shard, _CONTENT)
            if row["video_id"] in inside
        )
    )


def _copies(
    tables_of: Sequence[tuple[str, pa.Table]], ledger: Ledger, contents: Sequence[Content], found: Survey
) -> list[str]:
    """Return the ids of the stored videos below a root that are copies of withdrawn ones, but not withdrawn, sorted."""
    out = {(row.videos, row.video_id) for row in _matching(tables_of, ledger)}
    gone = [
        Video("withdrawn", item.source_sha256, item.start_seconds, item.end_seconds, item.frame_hashes())
        for item in contents
    ]
    ids: set[str] = set()
    for uri in dict.fromkeys(uri for uri, _ in tables_of) if gone else ():
        try:
            ids |= {key[1] for key, _ in left_out.find_copies_of(uri, (), gone) if (uri, key[1]) not in out}
        except InputError as error:  # an output that is not finished
            found.problems += [str(error)] if uri in found.finished else []
    return sorted(ids)


def _among(table: pa.Table, names: pa.Array) -> pa.Array:
    found = pc.is_in(table.column("video_id"), names)
    for column in (table.column("identity"), table.column("url"), _without_scheme(table.column("url"))):
        found = pc.or_(found, pc.is_in(column, names))
    return found


def _without_scheme(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(urls, "^file://", "")


def rests_on(found: Survey, stored: Sequence[Stored], given: Ledger, ledger: Ledger) -> Iterator[Resting]:
    """Yield the indexes that contain stored videos, and the checkpoints, results and reports made from them.

    Args:
        found: What is below the root.
        stored: The stored copies of the videos.
        given: The withdrawals; an index whose videos were deleted is judged by their ids.
        ledger: All withdrawals of the root, also those of earlier calls.
    """
    known = {(item.videos, item.video_id) for item in stored}
    ids = {video_id for _, video_id in known} | {item.video for item in given.withdrawals}
    videos_of: dict[str, list[str]] = {}
    weights: dict[str, str] = {}  # digests that a checkpoint may start from
    for uri, manifest in found.of("index").items():
        if inside := _videos_in(uri, manifest, known, ids, found):
            videos_of[uri] = inside
            yield Resting(uri, "index", inside, manifest, _remade(manifest, found, ledger))
    due = {**found.of("checkpoints")}
    while due:  # a checkpoint may start from another one
        more = {}
        for uri, manifest in due.items():
            start = manifest.decided.get("weights")
            origin = weights.get(start, "") if isinstance(start, str) else ""
            parents = (manifest.inputs.get("index", ""), manifest.inputs.get("previous", ""), origin)
            if inside := sorted({video for parent in parents for video in videos_of.get(parent, [])}):
                more[uri] = inside
                digests = [manifest.fingerprint, *(digest[:12] for digest in manifest.files.values())]
                weights |= dict.fromkeys(digests, uri)
                yield Resting(uri, "checkpoints", inside, manifest)
        if not more:
            break
        videos_of |= more
        due = {uri: manifest for uri, manifest in due.items() if uri not in more}
    for stage, inputs in (("results", ("checkpoint",)), ("report", ("index", "result"))):
        for uri, manifest in found.of(stage).items():
            origins = [videos_of.get(at, []) for name, at in manifest.inputs.items() if name.startswith(inputs)]
            if inside := sorted({video for origin in origins for video in origin}):
                videos_of[uri] = inside
                yield Resting(uri, stage, inside, manifest)
    for uri, manifest in found.of("saliency_model").items():
        fitted = _crawls(manifest.inputs.get("videos", ""), found)
        if manifest.decided.get("fit") and (inside := sorted({name for at, name in known if at in fitted})):
            yield Resting(uri, "saliency_model", inside, manifest)


def _crawls(videos: str, found: Survey) -> list[str]:
    """Return the videos of single crawls of a corpus, as far as they are known."""
    manifest = found.finished.get(videos)
    try:
        return members.uris(videos) if manifest and members.MEMBERS in manifest.files else [videos]
    except InputError as error:
        found.problems.append(str(error))
        return [videos]


def _videos_in(uri: str, manifest: Manifest, known: set[tuple[str, str]], ids: set[str], found: Survey) -> list[str]:
    """Return the ids of the withdrawn videos that an index contains, sorted."""
    try:
        table = tables.read_table(files.join(uri, index_table.TABLE), IndexRecord).select(["video_id", "crawl"])
    except InputError as error:
        found.problems.append(str(error))
        return []
    rows = table.filter(pc.is_in(table.column("video_id"), pa.array(sorted(ids), pa.string()))).to_pylist()
    videos = manifest.inputs.get("videos", "")
    crawls = _crawls(videos, found)
    if videos not in found.finished:  # deleted, or below another root
        return sorted({row["video_id"] for row in rows})
    return sorted({row["video_id"] for row in rows if (crawls[row["crawl"]], row["video_id"]) in known})


def _remade(manifest: Manifest, found: Survey, ledger: Ledger) -> str:
    """Return the address of the index that `previts index` makes instead of one with withdrawn videos, or ""."""
    videos = manifest.inputs.get("videos", "")
    if videos not in found.finished:
        return ""
    try:
        withdrawn = withdrawn_ids(videos, ledger)
    except InputError as error:
        found.problems.append(str(error))
        return ""
    return folders.address(found.root, "index", "corpus", {**manifest.decided, "withdrawn": withdrawn})


def resting_uris(resting: Sequence[Resting]) -> dict[str, list[str]]:
    """Return the ids of the withdrawn videos behind each output, by its URI."""
    return {item.uri: item.videos for item in resting}


def _listing(resting: Sequence[Resting]) -> list[str]:
    lines = ["", "rests on them:" if resting else "nothing under this root rests on them"]
    for item in sorted(resting, key=lambda item: RESTING.index(item.stage)):
        more = f" and {len(item.videos) - 3} more" if len(item.videos) > 3 else ""
        lines.append(f"  {NAMES.get(item.stage, item.stage)} {item.uri} ({', '.join(item.videos[:3])}{more})")
    return lines


def _next(resting: Sequence[Resting], root: str, found: Survey) -> list[str]:
    """Return what to run to replace what rests on the videos, for the newest generation of each corpus."""
    stages = {item.stage for item in resting}
    if not resting:
        return ["next: nothing; later downloads and indexes leave the videos out"]
    lines = [
        "next: start the same pipeline run again, or these verbs, each with the same --profile and --set as before:"
    ]
    made: dict[str, str] = {}
    older = _older([item for item in resting if item.stage == "index"], found)
    resting = [item for item in resting if item.uri not in older and item.manifest.inputs.get("index") not in older]
    for item in (item for item in resting if item.stage == "index"):
        done = bool(item.remade) and folders.is_committed(item.remade)
        made[item.uri] = item.remade if done else "NEW_INDEX"
        command = _command("index", item.manifest.inputs, ("videos", "tubes"), root)
        data = _data(item.manifest, root)
        lines.append(f"  {item.remade} is made already" if done else f"  {command}{data}{_filter(item.manifest)}")
    for item in (item for item in resting if item.stage == "checkpoints"):
        index, info = item.manifest.inputs.get("index", ""), item.manifest.info
        given = {"row": str(info.get("row")), "index": made.get(index, index), "profile": str(info.get("profile"))}
        lines.append(f"  {_command('pretrain', given, ('row', 'index', 'profile'), root)}")
    lines += [f"  (none for {len(older)} earlier indexes of fewer crawls)"] if older else []
    lines += ["  then `previts evaluate` and `previts report` with the new checkpoints"] if "results" in stages else []
    if "saliency_model" in stages:
        lines.append("  The saliency model saw frames of the videos, and is kept. Another root gets a new one")
    return lines


def _command(verb: str, values: Mapping[str, str], options: Iterable[str], root: str) -> str:
    given = " ".join(f"--{name} {values.get(name, '')}" for name in options)
    return f"previts {verb} {given} --root {root}"


def _older(indexes: Sequence[Resting], found: Survey) -> set[str]:
    """Return the indexes whose crawls are a part of those of another one."""
    crawls = {item.uri: _sources(item.manifest.inputs.get("videos", ""), found) for item in indexes}
    return {uri for uri, some in crawls.items() if any(some < others for others in crawls.values())}


def _sources(videos: str, found: Survey) -> set[str]:
    """Return the crawls of a corpus as files, which may have been edited since; else their outputs."""
    return {
        found.finished[uri].inputs.get("crawl", uri) if uri in found.finished else uri for uri in _crawls(videos, found)
    }


def _data(manifest: Manifest, root: str) -> str:
    """Return the option of the folder of labelled sets that an index was compared with, if it was."""
    data = set()
    sets = manifest.info.get("leak_sets", {})
    for name, known in sets.items():
        try:
            held_out = folders.read_manifest(files.join(root, "held_out", f"{name}-{known['held_out']}"))
            data.add(held_out.inputs["data"].rsplit("/", 1)[0])
        except (InputError, KeyError, TypeError):  # deleted
            continue
    if not sets:
        return ""
    return f" --data {data.pop()}" if len(data) == 1 else f" --data FOLDER_WITH_{'_'.join(sorted(sets)).upper()}"


def _filter(manifest: Manifest) -> str:
    expected = flatten(plain({"filter": plain(paper.resolve(None, "paper", ()).experiment.filter)}))
    found = flatten({"filter": manifest.decided.get("filter", {})})
    changed = [f"{name}={value}" for name, value in found.items() if expected.get(name) != value]
    return f" --set {' '.join(changed)}" if changed else ""
