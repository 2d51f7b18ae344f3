"""The memory and the operations of a step, found without computing it, against what a real step takes."""

from dataclasses import replace

import pytest
import torch
from moving_squares import small_experiment, small_video_experiment
from torch.profiler import ProfilerActivity, profile
from training_steps import synthetic_pairs

from previts.config.tables import PREVITS
from previts.errors import InputError
from previts.pretraining import dry_run
from previts.pretraining.loop import build_model, take_step
from previts.pretraining.optim import build_optimizer

CPU = torch.device("cpu")


def train(experiment, parts: int):
    """Take two real steps, in the precision of a GPU, and return what exists after them."""
    model = build_model(experiment, CPU).train()
    model.as_on_gpu = True
    optimizer = build_optimizer(model.parameters(), experiment.optim)
    pairs = synthetic_pairs(experiment, CPU)
    for _ in range(2):
        take_step(model, model, optimizer, pairs=pairs, parts=model.rows(experiment.optim.batch_size, parts))
    return model, optimizer


def measured(experiment, parts: int) -> dry_run.Memory:
    """Return the memory that torch's allocator reports to its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = train(experiment, parts)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    del kept
    return dry_run.Memory(now, peak)


@pytest.mark.parametrize(
    ("make", "parts", "precision"),
    [
        (small_experiment, 1, "bfloat16"),
        (small_experiment, 2, "float32"),
        pytest.param(small_video_experiment, 1, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_the_memory_is_that_of_a_real_step(monkeypatch, make, parts, precision):
    monkeypatch.setattr(dry_run, "_BLOCK", 1)  # in main memory sizes are not rounded
    experiment = make(batch_size=32, precision=precision)
    found, real = dry_run.step_memory(experiment, parts=parts), measured(experiment, parts)
    assert found.between == pytest.approx(real.between, rel=0.01)
    # Kernels have working memory of their own, for which the allowance is.
    assert found.peak < real.peak * 1.02
    assert real.peak < found.peak * (1 + dry_run.ALLOWANCE)


def test_a_pair_of_the_paper_takes_five_forward_passes_of_resnet50():
    # Without the gradient of the first layer for its input, which nothing needs: 0.236 GFLOP, in one pass.
    assert dry_run.operations(PREVITS) / 1e9 == pytest.approx(5 * 8.178 - 0.236, rel=0.002)


def test_processes_and_parts_must_divide_the_groups():
    with pytest.raises(InputError, match="must be a multiple of the number of processes, 3"):
        dry_run.step_memory(small_experiment(), 3)
    with pytest.raises(InputError, match="PREVITS_ACCUMULATE"):
        dry_run.step_memory(small_experiment(), 2, 2)


def test_more_parts_and_more_processes_need_less():
    experiment = small_experiment(batch_size=32)
    experiment = replace(experiment, augment=replace(experiment.augment, size=128))
    whole, half, shared = (dry_run.step_memory(experiment, *how) for how in ((1, 1), (1, 2), (2, 1)))
    assert half.between == whole.between
    assert half.peak < whole.peak
    gradients = shared.between - whole.between
    assert gradients == sum(p.nbytes for p in build_model(experiment, CPU).parameters() if p.requires_grad)
    assert shared.peak - gradients < half.peak
