"""All verbs on the root of an object store. Oracle: the same verbs on a root of the local disk."""

from pathlib import Path

import fake_stores
import fsspec
import pytest
from killing import MEASURED
from small_verbs import SMALL

from previts import stages
from previts.processes import workers
from previts.storage import files, leases

ROW = "1/vgg/previts"
BINARY = ("videos", "saliency", "tubes", "index", "checkpoint")  # outputs without numbers that measure the machine


@pytest.mark.slow
def test_every_verb_writes_to_an_object_store_what_it_writes_to_the_disk(made, mlflow_environment, monkeypatch):
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(workers, "available", lambda: 1)  # other processes do not know the address of this store
    with fake_stores.serving(fake_stores.Amazon) as store:
        keys = {"endpoint_url": store.url, "key": "key", "secret": "secret"}
        monkeypatch.setitem(fsspec.config.conf, "s3", keys)
        root, at = "s3://bucket/some root", {}
        for _ in range(2):  # the second time, everything is there
            at["videos"] = stages.download(made["crawl"], root, "demo", SMALL)
            at["model"] = stages.fit_saliency(at["videos"], root, "demo", SMALL)
            at["saliency"] = stages.saliency(at["videos"], at["model"], root, "demo", SMALL)
            at["tubes"] = stages.track(at["videos"], at["saliency"], root, "demo", SMALL)
            at["index"] = stages.index(at["videos"], at["tubes"], root)
            at["checkpoint"] = stages.pretrain(ROW, at["index"], root, "demo", SMALL)
            at["result"] = stages.evaluate(ROW, "davis", at["checkpoint"], made["data"], root, "demo", SMALL)
            at["report"] = stages.report([ROW, "6b"], at["index"], [at["result"]], root, "demo", SMALL)
        assert {name: uri.removeprefix(f"{root}/") for name, uri in at.items()} == {
            name: uri.removeprefix(f"{made['root']}/") for name, uri in made.items() if name in at
        }
        assert files.names(root) == sorted({uri.split("/")[-2] for uri in at.values()} | {"report.html"})
        assert [name for name in store.objects if name.endswith((".lease", ".tmp"))] == []
        for name in BINARY:
            local = [path for path in Path(made[name]).rglob("*") if path.is_file() and path.name not in MEASURED]
            there = {str(path.relative_to(made[name])): path.read_bytes() for path in local}
            found = {path: files.read_bytes(files.join(at[name], path)) for path in there}
            assert found == there
