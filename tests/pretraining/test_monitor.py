from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_squares import small_experiment, small_video_experiment
from training_runs import Recorder, log

from previts.models import pixels
from previts.models.moco import Clips, Pairs, Step, metric_names
from previts.pretraining import checkpoint, loop
from previts.pretraining.monitor import Monitor, contact_sheet
from previts.pretraining.optim import learning_rate
from previts.pretraining.schedule import Schedule
from previts.processes.conduct import Conduct

CPU = torch.device("cpu")
HERE = Conduct(workers=0)
EXPERIMENT = small_experiment(epochs=600)
PLAN = Schedule(8, 8, 600, 0)  # 600 steps: every third one has a line


def metrics_of(step):
    return torch.arange(len(metric_names(EXPERIMENT.objective))) + float(step)


def test_every_few_steps_have_a_line(tmp_path):
    recorder = Recorder()
    monitor = Monitor(str(tmp_path), 0, PLAN, EXPERIMENT, run=recorder)
    for step in range(7):
        monitor.add(step, metrics_of(step), [])
    assert [line["step"] for line in monitor.lines] == [3, 6]
    line = monitor.latest
    names = metric_names(EXPERIMENT.objective)
    assert [line[name] for name in names] == [5.0 + place for place in range(len(names))]
    assert line["epoch"] == 5  # from 0; an epoch is a step
    assert line["lr"] == learning_rate(5, 1, EXPERIMENT.optim)
    assert [step for step, _ in recorder.lines] == [3, 6]
    assert not (tmp_path / "log.jsonl").exists()  # lines are written with a state, or after 15 s
    monitor.write()
    assert log(tmp_path) == monitor.lines


def test_a_resumed_run_keeps_the_lines_up_to_its_state(tmp_path):
    checkpoint.write_log(str(tmp_path), [{"step": step, "loss": 1.0} for step in (3, 6, 9)])
    monitor = Monitor(str(tmp_path), 6, PLAN, EXPERIMENT, run=None)
    for step in (6, 7, 8):
        monitor.add(step, metrics_of(step), [])
    monitor.write()
    assert [(line["step"], line["loss"]) for line in log(tmp_path)] == [(3, 1.0), (6, 1.0), (9, 8.0)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training_in_any_step(tmp_path, loss):
    monitor = Monitor(str(tmp_path), 0, PLAN, EXPERIMENT, run=None)
    monitor.add(0, metrics_of(0), ["a"])
    with pytest.raises(FloatingPointError, match=r"the loss of step 2 is (nan|inf).*\(b, c\)"):
        monitor.add(1, torch.full_like(metrics_of(1), loss), ["b", "c"])


def test_a_log_that_cannot_be_written_does_not_stop_training(tmp_path, capsys):
    monitor = Monitor(str(tmp_path / "folder"), 0, PLAN, EXPERIMENT, run=None)
    (tmp_path / "folder").write_text("a file where the folder should be")
    monitor.write()
    assert "the log could not be written" in capsys.readouterr().err


def test_a_contact_sheet_has_a_query_and_its_own_key_in_each_row():
    # Pair p has a query of one colour and a key of another; keys are stored in the order `key_order`.
    order = torch.tensor([2, 0, 1])
    colours = np.array([[40, 0, 0], [80, 0, 0], [120, 0, 0], [0, 0, 40], [0, 0, 80], [0, 0, 120]], np.uint8)

    def side(chosen):
        clips = torch.from_numpy(chosen).float().div(255).view(3, 3, 1, 1, 1).expand(3, 3, 1, 64, 64)
        normalised = pixels.normalise(clips.transpose(1, 2)).transpose(1, 2)
        sure = torch.ones(3, dtype=torch.bool)
        corner = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
        corner[:, :, :8, :8] = True  # a small mask: the other pixels keep their colour
        return Clips(normalised, corner, sure, sure)

    pairs = Pairs(side(colours[:3]), side(colours[3:][order.numpy()]), None, order)
    empty = torch.zeros(3, 1, 2, 2)
    sheet = contact_sheet(pairs, Step(torch.zeros(()), torch.zeros(1), empty, empty))
    rows = [set(np.flatnonzero((sheet == colour).all(2).sum(1) > 20)) for colour in colours]
    for query, key in zip(rows[:3], rows[3:], strict=True):
        assert len(query) > 20
        assert query == key
    assert max(rows[0]) < min(rows[1]) <= max(rows[1]) < min(rows[2])


def test_the_log_has_every_metric(index, tmp_path):
    loop.run_pretraining(small_experiment(epochs=1), index, str(tmp_path), device=CPU, conduct=HERE)
    (line,) = log(tmp_path)
    assert set(line) == {
        *("step", "epoch", "lr", "loss", "loss_contrastive", "loss_attention", "positive_similarity"),
        *("queue_similarity", "attention_iou", "masked_share", "pairs_per_second", "data_wait"),
        *("memory_gib", "damaged_clips"),
    }
    assert line["loss"] == pytest.approx(line["loss_contrastive"] + 3 * line["loss_attention"], abs=1e-4)
    assert 0.1 < line["memory_gib"] < 20


def test_the_log_of_a_video_model_has_the_metrics_of_speed(index, tmp_path):
    loop.run_pretraining(small_video_experiment(epochs=1), index, str(tmp_path), device=CPU, conduct=HERE)
    (line,) = log(tmp_path)
    parts = line["loss_contrastive"] + 3 * line["loss_attention"] + line["loss_speed"]
    assert line["loss"] == pytest.approx(parts, abs=1e-4)
    assert line["speed_accuracy"] in {n / 8 for n in range(9)}


def test_clips_longer_than_every_tube_give_a_warning(index, tmp_path, capsys):
    experiment = small_video_experiment(epochs=1)
    loop.run_pretraining(experiment, index, str(tmp_path / "fits"), device=CPU, conduct=HERE)
    assert log(tmp_path / "fits")[0]["masked_share"] > 0
    assert "both masks" not in capsys.readouterr().err
    experiment = replace(experiment, sampling=replace(experiment.sampling, clip_stride=50))
    loop.run_pretraining(experiment, index, str(tmp_path / "long"), device=CPU, conduct=HERE)
    assert log(tmp_path / "long")[0]["masked_share"] == 0
    assert "no pair of step 1 has both masks" in capsys.readouterr().err


def test_images_are_made_at_even_distances_and_sent_to_the_run_log(index, tmp_path):
    recorder = Recorder()
    loop.run_pretraining(small_experiment(epochs=24), index, str(tmp_path), device=CPU, conduct=HERE, run=recorder)
    made = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert made == [f"step-{step:08d}.png" for step in range(1, 24, 2)]
    assert [(name, folder) for name, folder, _ in recorder.files] == [(name, "pictures") for name in made]
    assert all(size > 10_000 for _, _, size in recorder.files)
