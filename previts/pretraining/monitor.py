"""Metrics of a running training, and images of its attention.

The metrics are checked in every step and logged every few steps. The images show queries, their attention, and the
masks that the attention should match (PreViTS section 3.3). Nothing here changes what is learned.
"""

import io
import math
import resource
import sys
import time
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from previts.config.experiment import Experiment
from previts.media import drawing
from previts.models.moco import Pairs, Step, metric_names
from previts.models.pixels import MEAN, STD
from previts.pretraining import checkpoint
from previts.pretraining.optim import learning_rate
from previts.pretraining.schedule import Schedule
from previts.processes import distributed
from previts.storage import files

PICTURES = "pictures"  # folder of the images, in the folder of the checkpoints and among the run's artifacts
SHEETS = 12  # images of a run, about
SHEET_PAIRS = 6  # pairs in an image
LINES = 200  # in the log of a run, about; at most 50 steps apart


class MetricLogger(Protocol):
    """A second place for metrics and images, next to the folder of the checkpoints, such as `runlog.run_log.RunLog`."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record the metrics of a step."""

    def artifact(self, path: str, folder: str = "") -> None:
        """Record a file, by its path or URI."""


class Monitor:
    """The metrics and images of a run.

    On a GPU the metrics of a step are read during the next step, so training does not wait for them.

    Attributes:
        lines: The lines of the log so far, including those before a resume.
        latest: The last line of this process; empty before the first.
        waited: Seconds that training has waited for data since the last line; the loop adds to it.
        damaged: Number of damaged videos so far; the loop sets it.
    """

    def __init__(
        self,
        uri: str,
        first: int,
        schedule: Schedule,
        experiment: Experiment,
        *,
        run: MetricLogger | None,
    ) -> None:
        self.uri, self.schedule, self.experiment, self.run = uri, schedule, experiment, run
        self.names = metric_names(experiment.objective)
        self.every = max(1, min(50, schedule.total_steps // LINES))
        self.sheet_every = max(1, schedule.total_steps // SHEETS)
        self.lines = checkpoint.read_log(uri, first)
        self.latest: dict[str, float] = {}
        self.waited, self.damaged = 0.0, 0
        self._since, self._logged, self._written = time.perf_counter(), first, time.monotonic()
        self._pending: tuple[int, Tensor, torch.cuda.Event | None, list[str]] | None = None

    def add(self, step: int, metrics: Tensor, video_ids: list[str]) -> None:
        """Take the metrics of a step that has been started."""
        if metrics.is_cuda:
            self.log_pending()
        self._pending = (step, *_to_host(metrics), video_ids)
        if not metrics.is_cuda:
            self.log_pending()

    def log_pending(self) -> None:
        """Check the metrics that have not been checked yet, and log them if a line is due.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        if self._pending is None:
            return
        step, metrics, event, video_ids = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        if not math.isfinite(float(metrics[0])):
            raise FloatingPointError(
                f"the loss of step {step + 1} is {float(metrics[0])}; lower optim.lr, or check the videos of the "
                f"batch ({', '.join(video_ids)}). States saved before this step are sound"
            )
        if (step + 1) % self.every == 0 or step + 1 == self.schedule.total_steps:
            self._line(step, metrics)

    def _line(self, step: int, metrics: Tensor) -> None:
        distributed.average_([metrics])
        if not distributed.is_main():
            return
        now, config, is_first = time.perf_counter(), self.experiment, not self.latest
        seconds = max(now - self._since, 1e-9)
        pairs = (step + 1 - self._logged) * config.optim.batch_size
        self.latest = {
            "step": step + 1,
            "epoch": self.schedule.epoch(step),
            **{name: round(float(value), 6) for name, value in zip(self.names, metrics, strict=True)},
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
                f"no pair of step {step + 1} has both masks, so the attention loss is 0. If masked_share stays 0 "
                "in the log, check that tubes exist (previts look) and that clips fit into them (sampling.clip_stride)",
                file=sys.stderr,
            )
        if self.run is not None:
            self.run.metrics({name: value for name, value in self.latest.items() if name != "step"}, step + 1)
        if time.monotonic() - self._written > 15:
            self.write()

    def write(self) -> None:
        """Write the lines so far; on resuming, lines after the restored state are dropped."""
        self._written = time.monotonic()
        try:
            checkpoint.write_log(self.uri, self.lines)
        except Exception as error:  # object stores raise types of their own; training continues
            print(f"the log could not be written, it is tried again with the next lines: {error}", file=sys.stderr)

    def save_sheet(self, step: int, pairs: Pairs, result: Step) -> None:
        """Save images of a step's first part if they are due: at the first step, and then at even distances."""
        due = step % self.sheet_every == 0
        if not (due and distributed.is_main() and len(result.cam)):
            return
        buffer = io.BytesIO()
        Image.fromarray(contact_sheet(pairs, result)).save(buffer, "PNG")
        name = f"step-{step + 1:08d}.png"
        uri = files.join(self.uri, PICTURES, name)
        try:
            files.write_bytes(uri, buffer.getvalue())
        except Exception as error:  # object stores raise types of their own; training continues
            print(f"the image of step {step + 1} could not be written, training continues: {error}", file=sys.stderr)
            return
        if self.run is not None:
            self.run.artifact(uri, PICTURES)


def _to_host(metrics: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return the metrics in main memory; from a GPU they are there once the event has happened."""
    if not metrics.is_cuda:
        return metrics.cpu(), None
    on_host = torch.empty(metrics.shape, dtype=metrics.dtype, pin_memory=True)
    on_host.copy_(metrics, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return on_host, event


def contact_sheet(pairs: Pairs, step: Step) -> NDArray[np.uint8]:
    """Return an image of some pairs of a step, as the model received them, one pair a row.

    The columns are middle frames: of the query with its mask, of its attention, of the pooled mask, and of the key with
    its mask. The last column is left out if the keys are on several processes.
    """
    place = {pair: row for row, pair in enumerate(pairs.key_order[: len(pairs.key.clips)].cpu().tolist())}
    whole = len(pairs.key_order) == len(pairs.key.clips)
    rows = []
    for row in range(min(SHEET_PAIRS, len(step.cam))):
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
    """Return the middle frame of a normalised clip as RGB."""
    frame_CHW = clip_CTHW[:, clip_CTHW.shape[1] // 2].float().cpu()
    frame_CHW = frame_CHW * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    return np.ascontiguousarray((frame_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _mask(mask_THW: Tensor) -> NDArray[np.bool_]:
    mask = mask_THW[mask_THW.shape[0] // 2].cpu().numpy()
    # A mask that is not known is all True; it is shown as no mask.
    return np.zeros_like(mask) if mask.all() else mask


def peak_memory() -> int:
    """Return the peak memory of this process in bytes: of its GPU if it has one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
