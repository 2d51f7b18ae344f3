"""The verb `index`, which joins videos and tubes into the sampling index.

With the labelled sets it is also the leakage guard. A chain of results decides which videos are leaks: the hashes of
each set (`held_out/`), then the videos that match them (`leaks/`). The index depends on these videos alone, so another
labelled set that shows no other video keeps the index and all its checkpoints.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from previts.config import paper
from previts.config.benchmarks import SETS, SETS_WITH_SPLITS
from previts.config.experiment import Plan
from previts.corpus.withdrawals import HASHING
from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, exclusive, finished, made
from previts.storage import files, fingerprints, folders, leases

if TYPE_CHECKING:
    from previts.corpus.withdrawals import Ledger

SETS_INFO = "leak_sets"


@dataclass(frozen=True)
class _Compared:
    """What a corpus was compared with.

    Attributes:
        uri: The leaks; "" if nothing was compared.
        leaks: Fingerprint of the videos that are leaks; "" if there is none.
        sets: By the name of each set: the fingerprint of its hashes, the numbers of its items, and causes.
    """

    uri: str = ""
    leaks: str = ""
    sets: Mapping[str, Any] = field(default_factory=dict)


@exclusive
def index(
    videos: str,
    tubes: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    data: str = "",
    row: str = "",
) -> str:
    """Join videos and tubes of all crawls into the table of frames that may be sampled. A filter can leave videos out.

    Videos that `previts withdraw` named are left out.

    Args:
        videos: URI that `download` returned.
        tubes: URI that `track` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as filter.min_agreement=0.3.
        data: Folder of the labelled datasets, as for `evaluate`. Videos that show something of their test parts are
            left out. Without it, nothing is compared.
        row: Row of the paper whose settings are used. By default, those that all rows share.

    Returns:
        URI of the index, for `pretrain`.
    """
    plan = paper.resolve(row or None, profile, set)
    config = plan.experiment.filter
    found = {"videos": finished(videos, "videos"), "tubes": finished(tubes, "tubes")}
    compared = _find_leaks(videos, found["videos"], root, data, plan)
    settings = {name: value for name, value in asdict(config).items() if name != "leakage"}
    decided = {**found, "filter": settings, "leaks": compared.leaks, "format": FORMATS["index"]}
    ledger, withdrawn = _withdrawn(videos, root)
    if withdrawn:  # withdrawals of other videos do not count, so they give no new index
        decided["withdrawn"] = withdrawn
    uri = folders.address(root, "index", "corpus", decided)
    if done(uri):
        _remember(uri, compared.sets)
        return uri
    from previts.corpus.index_table import QUALITY, TABLE, join_corpus, write_index
    from previts.corpus.left_out import find_left_out, read_leaks

    left_out = find_left_out(videos, config, read_leaks(compared.uri) if compared.leaks else (), ledger)
    counts = write_index(uri, join_corpus(videos, tubes), config, left_out)
    if not counts["videos_with_tube"]:
        print(
            "no video has a tube: only rows without tracking, such as 1/vgg/moco, can be pretrained on this index",
            file=sys.stderr,
        )
    folders.commit(
        uri,
        decided,
        inputs={"videos": videos, "tubes": tubes},
        counts={**counts, **_counts(compared.sets)},
        info={SETS_INFO: compared.sets},
        files=(TABLE, QUALITY),
    )
    return made(uri)


def _withdrawn(videos: str, root: str) -> tuple["Ledger", list[tuple[int, str]]]:
    """Return the withdrawals that may concern a corpus, and the videos of the corpus that were withdrawn."""
    from previts.corpus import withdrawals

    ledger = withdrawals.read_for(videos, root=root)
    if not ledger:
        return ledger, []
    from previts.corpus.withdrawn_videos import withdrawn_ids

    return ledger, withdrawn_ids(videos, ledger)


def _find_leaks(videos: str, fingerprint: str, root: str, data: str, plan: Plan) -> _Compared:
    """Return which videos of a corpus show something of the test parts of the labelled sets; nothing without `data`."""
    config = plan.experiment.filter
    if not data or config.leakage == "off":
        return _Compared()
    existing = {name: identity for name in SETS if (identity := _identity(files.join(data, name)))}
    if not existing:
        raise InputError(
            f"--data {data} has none of the labelled sets {', '.join(SETS)}; give the folder that contains them, or "
            "leave it out to compare the corpus with nothing"
        )
    chosen = plan.evaluation.actions.split
    splits = ("1", "2", "3") if chosen == "all" else (chosen,)
    decided_of = {
        name: {
            "data": identity,
            **({"splits": splits} if name in SETS_WITH_SPLITS else {}),
            "format": FORMATS["held_out"],
            "hashing": HASHING,
        }
        for name, identity in existing.items()
    }
    sets = {name: folders.address(root, "held_out", name, decided) for name, decided in decided_of.items()}
    decided = {
        "videos": fingerprint,
        "duplicates": config.duplicates,  # copies are not compared
        "held_out": {name: folders.fingerprint_of(uri, "held_out") for name, uri in sets.items()},
        "format": FORMATS["leaks"],
    }
    uri = folders.address(root, "leaks", "corpus", decided)
    if not done(uri):
        from previts.corpus import left_out
        from previts.evals.held_out import hash_table

        names, hashes, known = list[str](), list[bytes](), dict[str, Any]()
        for name, set_uri in sets.items():
            _hash_set(set_uri, name, data, splits, decided_of[name])
            manifest = folders.read_manifest(set_uri)
            known[name] = {"held_out": manifest.fingerprint, **manifest.counts, **manifest.info}
            items = hash_table.read_table(set_uri)
            names += [f"{name}/{item.name}" for item in items]
            hashes += [item.hashes for item in items]
        leaks = left_out.find_leaks(videos, config, names, hashes)
        left_out.write_leaks(uri, leaks)
        of_videos = left_out.identity(leaks)
        folders.commit(
            uri,
            decided,
            inputs={"videos": videos, **sets},
            counts={"videos": len(of_videos), "matches": len(leaks), **_counts(known)},
            info={"leaks": fingerprints.fingerprint(of_videos) if leaks else "", SETS_INFO: known},
            files=[left_out.LEAKS],
        )
        made(uri)
    info = folders.read_manifest(uri).info
    return _Compared(uri, info["leaks"], info[SETS_INFO])


def _identity(uri: str) -> str:
    """Return the identity of a labelled set; "" if there is none."""
    try:
        return folders.identity(uri) if files.exists(uri) else ""
    except InputError:  # the folder is empty
        return ""


def _hash_set(uri: str, name: str, data: str, splits: Sequence[str], decided: Mapping[str, Any]) -> None:
    """Compute and keep the hashes of the held-out items of a labelled set."""
    if done(uri):
        return
    from previts.evals.held_out import hash_table

    set_uri = files.join(data, name)
    written = hash_table.write_table(uri, name, set_uri, splits)
    for item, cause in written.causes.items():
        print(f"not compared: {name}/{item}: {cause}", file=sys.stderr)
    folders.commit(
        uri,
        decided,
        inputs={"data": set_uri},
        counts={"items": written.items, "unreadable": written.unreadable},
        info={"causes": written.causes},
        files=[hash_table.TABLE],
    )
    made(uri)


def _counts(sets: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of an index that say what it was compared with."""
    return {
        "leak_sets": sum(not known["causes"].get("") for known in sets.values()),
        "leak_items": sum(known["items"] for known in sets.values()),
        "leak_unreadable": sum(known["unreadable"] for known in sets.values()),
    }


def _remember(uri: str, sets: Mapping[str, Any]) -> None:
    """Add the sets of this comparison to the manifest of an index; it is the index of each of them.

    Other sets that it was compared with before stay there: they gave the same videos.
    """
    if sets.items() <= folders.read_manifest(uri).info.get(SETS_INFO, {}).items():
        return
    lease = leases.take(uri, leases.OUTPUT)
    manifest = folders.read_manifest(uri)
    for name in manifest.files:
        folders.read_file(uri, name)  # it may have been changed, and its digest is computed again
    known = {**manifest.info.get(SETS_INFO, {}), **sets}
    folders.commit(
        uri,
        manifest.decided,
        inputs=manifest.inputs,
        counts={**manifest.counts, **_counts(known)},
        info={**manifest.info, SETS_INFO: known},
        files=manifest.files,
    )
    lease.release()
