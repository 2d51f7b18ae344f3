import pickle
import shutil
import tempfile
from collections import namedtuple
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from moving_squares import moved, small_experiment, small_video_experiment

from previts.corpus import tube_table
from previts.errors import InputError
from previts.pretraining import dataset, loader
from previts.pretraining.schedule import Schedule


def schedule(videos=10, batch=4, epochs=3):
    return Schedule(videos, batch, epochs, seed=0)


def all_batches(pairs, plan, first=0, **options):
    return list(loader.load_batches(pairs, plan, first, **options))


def same_side(one, other):
    if one is None or other is None:
        return one is other
    return all(torch.equal(a, b) for a, b in zip(one[:6], other[:6], strict=True)) and one.video_ids == other.video_ids


def same(one, other):
    return all(same_side(*sides) for sides in zip(one[:3], other[:3], strict=True)) and torch.equal(
        one.key_order, other.key_order
    )


@pytest.mark.parametrize("experiment", [small_experiment(), small_video_experiment()], ids=["image", "speed"])
def test_workers_processes_and_the_first_step_do_not_change_a_sample(index, experiment):
    plan = schedule(batch=4, epochs=2)
    pairs = dataset.PairDataset(index, experiment)
    whole = all_batches(pairs, plan)
    assert len(whole) == plan.total_steps == 4
    assert all(same(*both) for both in zip(whole, all_batches(pairs, plan, workers=2), strict=True))
    assert all(same(*both) for both in zip(whole[3:], all_batches(pairs, plan, 3), strict=True))
    halves = [all_batches(pairs, plan, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        for side in ("query", "key", "other") if experiment.objective.speed_weight else ("query", "key"):
            for part in range(6):
                joined = torch.cat([getattr(half[step], side)[part] for half in halves])
                assert torch.equal(joined, getattr(batch, side)[part])


def test_a_worker_gets_the_path_of_the_index_and_maps_it(index, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = pa.concat_tables([index.table] * 1000)
    with dataset.PairDataset(replace(index, table=table), small_experiment()).mapped() as shared:
        shared.numbers = [0]
        assert len(pickle.dumps(shared)) < 10_000 < table.nbytes
        before = pa.total_allocated_bytes()
        received = pickle.loads(pickle.dumps(shared))
        assert pa.total_allocated_bytes() - before < table.nbytes / 100
        assert received.index.table.equals(table)
        assert received.index[len(index)] == index[0]
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_worker_is_raised_without_its_traceback(index, tmp_path):
    shutil.copytree(index.crawls[0].tubes, tmp_path / "tubes")
    pairs = dataset.PairDataset(moved(index, tubes=str(tmp_path / "tubes")), small_experiment())
    for shard in range(2):
        (tmp_path / "tubes" / tube_table.blob_name(shard)).unlink()
    with pytest.raises(InputError, match=r"^[^\n]*\.tubes is missing; [^\n]*$"):
        all_batches(pairs, schedule(batch=10), workers=1)


def test_too_many_damaged_videos_stop_training_with_the_reasons():
    damaged = loader.Damaged(videos=1000)
    damaged.count([(f"v{n}", "no frame decoded") for n in range(10)] * 3)
    with pytest.raises(InputError, match=r"11 videos .* 10 are tolerated \(v0: no frame decoded"):
        damaged.count([("w", "")])


def test_many_workers_leave_a_core_to_training_and_a_cpu_takes_none(monkeypatch):
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: set(range(16)))
    gpu = torch.device("cuda")
    assert [loader.default_workers(gpu, processes) for processes in (1, 2, 4, 16)] == [12, 7, 3, 1]
    assert loader.default_workers(torch.device("cpu"), 1) == 0


def test_workers_must_fit_into_shared_memory(monkeypatch, capsys):
    experiment, free = small_experiment(), 1 << 20
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr("previts.pretraining.loader.shutil.disk_usage", lambda _: usage(free))
    assert loader.fitting_workers(experiment, 0, chosen=True) == 0
    batch = experiment.optim.batch_size * 2 * experiment.augment.size**2 * 5 // 2
    fitting = free // (3 * batch)
    assert loader.fitting_workers(experiment, fitting, chosen=True) == fitting
    with pytest.raises(InputError, match=f"set PREVITS_WORKERS={fitting}"):
        loader.fitting_workers(experiment, fitting + 1, chosen=True)
    assert loader.fitting_workers(experiment, fitting + 1, chosen=False) == fitting
    assert "has only 1 MiB" in capsys.readouterr().err
