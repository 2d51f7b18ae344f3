"""What is to be seen of a training while it runs: its figures, and pictures of where it looks.

Figures are looked at every step and written down every few; pictures show queries, their attention, and the masks that
it should lie on (PreViTS section 3.3). Nothing here changes what is learnt.
"""

import io
import math
import os
import resource
import sys
import tempfile
import time
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from previts.config.experiment import Experiment
from previts.media import drawing
from previts.models.moco import Pairs, Step, figure_names
from previts.models.pixels import MEAN, STD
from previts.pretraining import checkpoint
from previts.pretraining.optim import learning_rate
from previts.pretraining.schedule import Schedule
from previts.processes import distributed
from previts.storage import files

PICTURES = "pictures"  # folder below that of the checkpoints, and of the run's artifacts
SHEETS = 12  # pictures of a run, about
SHOWN = 6  # pairs of a picture
LINES = 200  # of the log of a run, about; at most 50 steps apart


class MetricLogger(Protocol):
    """Where figures and pictures are logged, in addition to the folder of the checkpoints; `runlog.RunLog` is one."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record figures of a step."""

    def artifact(self, path: str, folder: str = "") -> None:
        """Record a file of this machine."""


class Monitor:
    """The figures and pictures of a run.

    On a GPU the figures of a step are read while the next one computes, so nothing waits for them.

    Attributes:
        lines: What has been written down so far, those of earlier calls included.
        latest: The last line of this call.
        waited: Seconds that training waited for data since the last line; the loop adds to it.
        damaged: Videos that could not be read so far; the loop sets it.
    """

    def __init__(
        self,
        uri: str,
        first: int,
        schedule: Schedule,
        experiment: Experiment,
        run: MetricLogger | None,
    ) -> None:
        self.uri, self.schedule, self.experiment, self.run = uri, schedule, experiment, run
        self.names = figure_names(experiment.objective)
        self.every = max(1, min(50, schedule.total_steps // LINES))
        self.picture_every = max(1, schedule.total_steps // SHEETS)
        self.lines = checkpoint.read_log(uri, first)
        self.latest: dict[str, float] = {}
        self.waited, self.damaged = 0.0, 0
        self._since, self._logged, self._written = time.perf_counter(), first, time.monotonic()
        self._pending: tuple[int, Tensor, torch.cuda.Event | None, list[str]] | None = None

    def add(self, step: int, figures: Tensor, video_ids: list[str]) -> None:
        """Take the figures of a step that has been started."""
        event = None
        if figures.is_cuda:
            self.drain()
            on_host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            figures = on_host.copy_(figures, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._pending = (step, figures, event, video_ids)
        if event is None:
            self.drain()

    def drain(self) -> None:
        """Look at the figures that have not been looked at yet.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        if self._pending is None:
            return
        step, figures, event, video_ids = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        if not math.isfinite(float(figures[0])):
            raise FloatingPointError(
                f"the loss of step {step + 1} is {float(figures[0])}; lower optim.lr, or look at the videos of the "
                f"batch ({', '.join(video_ids)}). States saved before this step are sound"
            )
        if (step + 1) % self.every == 0 or step + 1 == self.schedule.total_steps:
            self._line(step, figures)

    def _line(self, step: int, figures: Tensor) -> None:
        distributed.average_([figures])
        if not distributed.is_main():
            return
        now, config, is_first = time.perf_counter(), self.experiment, not self.latest
        seconds = max(now - self._since, 1e-9)
        pairs = (step + 1 - self._logged) * config.optim.batch_size
        self.latest = {
            "step": step + 1,
            "epoch": self.schedule.epoch(step),
            **{name: round(float(value), 6) for name, value in zip(self.names, figures, strict=True)},
            "lr": learning_rate(step, self.schedule.steps_per_epoch, config.optim),
            "pairs_per_second": round(pairs / seconds, 3),
            "data_wait": round(min(1.0, self.waited / seconds), 4),
            "memory_gib": round(peak_memory() / 2**30, 3),
            "damaged_clips": self.damaged,
        }
        self._since, self._logged, self.waited = now, step + 1, 0.0
        self.lines.append(self.latest)
        if is_first and self.latest.get("masked_share") == 0:
            print(
                f"no pair of step {step + 1} has both masks: nothing is learnt from attention. If masked_share stays 0 "
                "in the log: are there tubes (previts look), are clips no longer than they (sampling.clip_stride)?",
                file=sys.stderr,
            )
        if self.run is not None:
            self.run.metrics({name: value for name, value in self.latest.items() if name != "step"}, step + 1)
        if time.monotonic() - self._written > 15:
            self.write()

    def write(self) -> None:
        """Write the lines so far; on resuming, those after the restored state are dropped."""
        self._written = time.monotonic()
        try:
            checkpoint.write_log(self.uri, self.lines)
        except Exception as error:  # object stores raise types of their own; no log is worth a training
            print(f"the log could not be written, with the next lines it is tried again: {error}", file=sys.stderr)

    def look(self, step: int, pairs: Pairs, result: Step) -> None:
        """Make a picture of a step's first part where one is due: the first step, and at even distances from there."""
        due = step % self.picture_every == 0
        if not (due and distributed.is_main() and len(result.cam)):
            return
        buffer = io.BytesIO()
        Image.fromarray(picture(pairs, result)).save(buffer, "PNG")
        name = f"step-{step + 1:08d}.png"
        uri = files.join(self.uri, PICTURES, name)
        try:
            files.write_bytes(uri, buffer.getvalue())
        except Exception as error:  # object stores raise types of their own; no picture is worth a training
            print(f"no picture of step {step + 1}: {error}", file=sys.stderr)
            return
        if self.run is None:
            return
        if path := files.local_path(uri):
            self.run.artifact(path, PICTURES)
            return
        with tempfile.TemporaryDirectory(prefix="previts-") as folder:
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(buffer.getvalue())
            self.run.artifact(path, PICTURES)


def picture(pairs: Pairs, step: Step) -> NDArray[np.uint8]:
    """Return a sheet of some pairs of a step, as the model saw them, one a row.

    The columns are the middle frames of the query with its mask, of its attention, and of the key with its mask where
    this process holds the key too.
    """
    place = {int(pair): row for row, pair in enumerate(pairs.key_order[: len(pairs.key.clips)])}
    whole = len(pairs.key_order) == len(pairs.key.clips)
    rows = []
    for row in range(min(SHOWN, len(step.cam))):
        query = _image(pairs.query.clips[row])
        middle = step.cam.shape[1] // 2
        columns = [
            drawing.with_tube(query, _mask(pairs.query.mask[row]), "no mask"),
            drawing.heat_over(query, step.cam[row, middle].float().cpu().numpy()),
            drawing.heat(drawing.resize_map(step.mask[row, middle].float().cpu().numpy(), query)),
        ]
        if whole:
            key = place[row]
            columns.append(drawing.with_tube(_image(pairs.key.clips[key]), _mask(pairs.key.mask[key]), "no mask"))
        rows.append((f"pair {row + 1}", columns))
    titles = ["query, mask", "attention", "mask, pooled", "key, mask"]
    return drawing.sheet(titles[: len(rows[0][1])], rows)


def _image(clip_CTHW: Tensor) -> NDArray[np.uint8]:
    """Return the middle frame of a normalised clip in its colours."""
    frame_CHW = clip_CTHW[:, clip_CTHW.shape[1] // 2].float().cpu()
    frame_CHW = frame_CHW * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    return np.ascontiguousarray((frame_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _mask(mask_THW: Tensor) -> NDArray[np.bool_]:
    mask = mask_THW[mask_THW.shape[0] // 2].cpu().numpy()
    # A mask that is not known is all True, and is shown as none.
    return np.zeros_like(mask) if mask.all() else mask


def peak_memory() -> int:
    """Return the most bytes that this process has held: of its GPU where it has one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
