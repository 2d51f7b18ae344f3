"""Where a training waits for its device. If a step waits, a GPU is idle until the next work arrives."""

import sys

import pytest
import torch
from device_waits import DEVICE, DeviceWaits
from moving_squares import small_experiment, small_video_experiment

from previts.pretraining import loop, monitor
from previts.processes.conduct import Conduct

STEPS, SHEETS = 4, 2
TO_HOST, TO_DEVICE = "copy to the host", "copy to the device"


@pytest.mark.parametrize(("make", "parts"), [(small_experiment, 1), (small_video_experiment, 2)])
def test_a_step_waits_for_its_device_only_to_show_and_to_save(index, tmp_path, monkeypatch, make, parts):
    monkeypatch.setattr(monitor, "LINES", 2)
    monkeypatch.setattr(monitor, "SHEETS", SHEETS)
    # The device computes nothing, so it can have the fused optimiser too.
    monkeypatch.setattr(
        sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", lambda: [DEVICE.type]
    )
    experiment, conduct = make(epochs=STEPS, clip_norm=1.0), Conduct(workers=0, accumulate=parts)
    with DeviceWaits() as waits:
        loop.run_pretraining(experiment, index, str(tmp_path), device=DEVICE, conduct=conduct)
    values = len(loop.build_model(experiment, torch.device("cpu")).state_dict())
    assert values < waits.counted.pop(("pretraining/checkpoint.py: _copied", TO_HOST)) < 2 * values  # and momenta
    assert waits.counted.pop(("pretraining/loop.py: build_model", TO_DEVICE)) == values
    rows = min(monitor.SHEET_PAIRS, experiment.optim.batch_size // parts)
    assert waits.counted == {
        # In every step. From a GPU this copy is read in the next step.
        ("pretraining/monitor.py: _to_host", TO_HOST): STEPS,
        # In few steps of a run.
        ("pretraining/monitor.py: contact_sheet", TO_HOST): SHEETS * (2 * rows + 1),
        ("pretraining/monitor.py: _image", TO_HOST): SHEETS * 2 * rows,
        ("pretraining/monitor.py: _mask", TO_HOST): SHEETS * 2 * rows,
        ("pretraining/checkpoint.py: save", "value"): 1,
    }
