"""Properties of all verbs: a second call, a lost shard, an invalid part, and another root."""

import os
import shutil
from pathlib import Path

import pytest
from small_verbs import SMALL, snapshot

from previts import stages
from previts.corpus import index_table
from previts.errors import InputError
from previts.storage import files, folders, tables


def test_a_second_call_of_every_verb_does_nothing(made, world):
    before = snapshot(made["root"])
    root = made["root"]
    again = {
        "videos": stages.download(made["crawl"], root, "demo", SMALL),
        "model": stages.fit_saliency(made["videos"], root, "demo", SMALL),
        "saliency": stages.saliency(made["videos"], made["model"], root, "demo", SMALL),
        "tubes": stages.track(made["videos"], made["saliency"], root, "demo", SMALL),
        "index": stages.index(made["videos"], made["tubes"], root),
        "checkpoint": stages.pretrain("6b/mu=0.3", made["index"], root, "demo", SMALL),
        "result": stages.evaluate("6b/mu=0.3", "davis", made["checkpoint"], made["data"], root, "demo", SMALL),
        "report": stages.report(["1/vgg/previts", "6b"], made["index"], [made["result"]], root, "demo", SMALL),
    }
    assert again == {name: made[name] for name in again}
    after = snapshot(root)
    page = str(Path(root) / "report.html")  # may be the copy of another comparison before
    assert {name: time for name, time in after.items() if name != page} == {
        name: time for name, time in before.items() if name != page
    }


def test_only_a_missing_shard_is_made_again(made, world, tmp_path):
    for stage in ("videos", "saliency", "tubes"):
        shutil.copytree(made["root"], tmp_path / stage)
    for stage, verb in (
        ("videos", lambda at, root: stages.download(made["crawl"], root, "demo", SMALL)),
        ("saliency", lambda at, root: stages.saliency(at["videos"], at["model"], root, "demo", SMALL)),
        ("tubes", lambda at, root: stages.track(at["videos"], at["saliency"], root, "demo", SMALL)),
    ):
        root = str(tmp_path / stage)
        at = {name: uri.replace(made["root"], root) for name, uri in made.items()}
        whole = folders.read_manifest(at[stage]).counts
        os.unlink(files.join(at[stage], "manifest.json"))
        os.unlink(files.join(at[stage], tables.table_name(1)))
        others = {name: time for name, time in snapshot(at[stage]).items() if "00001" not in name}
        assert verb(at, root) == at[stage]
        assert folders.read_manifest(at[stage]).counts == whole
        assert {name: snapshot(at[stage])[name] for name in others} == others


def test_another_root_has_the_same_addresses_and_the_same_index(made, world):
    root = "memory://flow"
    videos = stages.download(made["crawl"], root, "demo", SMALL)
    model = stages.fit_saliency(videos, root, "demo", SMALL)
    regions = stages.saliency(videos, model, root, "demo", SMALL)
    followed = stages.track(videos, regions, root, "demo", SMALL)
    index = stages.index(videos, followed, root)
    assert index == made["index"].replace(made["root"], root)
    assert files.read_bytes(files.join(index, index_table.TABLE)) == files.read_bytes(
        files.join(made["index"], index_table.TABLE)
    )


@pytest.mark.parametrize(("part", "parts"), [(2, 2), (-1, 2), (0, 0)])
def test_an_invalid_part_is_refused_even_if_the_output_is_finished(made, part, parts):
    for verb in (
        lambda: stages.download(made["crawl"], made["root"], "demo", SMALL, part, parts),
        lambda: stages.saliency(made["videos"], made["model"], made["root"], "demo", SMALL, part, parts),
        lambda: stages.track(made["videos"], made["saliency"], made["root"], "demo", SMALL, part, parts),
    ):
        with pytest.raises(InputError, match=r"part from 0 to parts - 1"):
            verb()
