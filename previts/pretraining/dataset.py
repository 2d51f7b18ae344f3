"""Dataset of pairs: cropped clips and masks of the videos of an index, and their batches.

PreViTS sections 3.1 and 3.2. All random numbers are drawn from a counter (seed, epoch, sample, purpose). So a sample is
the same for any number of loader workers and processes, and a run can start at any step. Colours are not changed here,
not even converted to RGB: `augment.py` does that on the training device. Only its random numbers are drawn here.

Shape suffixes: B pairs of this process, N pairs of all processes, T frames, S pixels of a side of a crop, R = 3 S / 2
rows of an I420 image (`crop_cutting.py`), P numbers of a draw.
"""

import contextlib
import copy
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from previts.config.experiment import Experiment
from previts.corpus import tube_table, video_table
from previts.corpus.index_table import Crawl, Index, IndexRecord
from previts.errors import InputError, VideoError
from previts.media.boxes import Box
from previts.pretraining import augment, clip_sampling, crop_cutting, crop_sampling, read_ahead
from previts.pretraining.block_cache import BlockCache
from previts.pretraining.schedule import Purpose, Schedule, generator
from previts.storage import files, folders

Role = Literal["query", "key", "other"]
_ROLES: dict[Role, int] = {"query": 0, "key": 1, "other": 2}

_AT_ONCE = 32  # folders that are listed at once
_AHEAD = 1  # steps whose bytes are requested in advance
_UNKNOWN_MATRIX = 2  # H.264's code


class LoadedClip(NamedTuple):
    """One clip of a pair: its images (T, R, S) as I420, the mask of the object (T, S, S), and the `draw` for `augment`.

    `matrix` is H.264's code of the colour matrix. `masked` is False if the mask is not known; the mask is then all
    True. `error` is the reason why the clip is damaged, or empty.
    """

    video_id: str
    clip: NDArray[np.uint8]
    matrix: int
    mask: NDArray[np.bool_]
    masked: bool
    draw: NDArray[np.float32]
    error: str


class Side(NamedTuple):
    """The queries, the keys or the other clips of a batch, on the CPU. If not `usable`, the clip is a placeholder.

    Clips are (B, T, R, S) uint8 as I420, masks (B, T, S, S), draws (B, P), the rest (B,). `matrices` contains H.264's
    codes of the colour matrices. A mask that is not known (`masked` is False) is all True.
    """

    clips: Tensor
    matrices: Tensor
    masks: Tensor
    masked: Tensor
    usable: Tensor
    draws: Tensor
    video_ids: list[str]


class Batch(NamedTuple):
    """The input of one step of this process; `damaged` lists (video id, reason).

    Row b contains the query of pair b, and the key of pair `key_order[b]`. With the speed task it also contains the
    `other` clip of that second pair.
    """

    query: Side
    key: Side
    other: Side | None
    key_order: Tensor
    damaged: list[tuple[str, str]]


Request = tuple[int, int, int, int]
"""Step, epoch, sample of the query, sample of the key."""

Item = tuple[int, list[LoadedClip]]
"""Step; the query of one sample, then the key of another sample and, with the speed task, its other clip."""


class Memory(NamedTuple):
    """The clips (B, T, R, S) and masks (B, T, S, S) of one side of a batch.

    Each clip is written to its row. Arrays of single clips would have to be copied, and the operating system needs more
    time to provide their many pages than the processor needs to fill them.
    """

    clips: NDArray[np.uint8]
    masks: NDArray[np.bool_]


class _Plan(NamedTuple):
    """What is read for clips of a sample.

    `frames` are the frames of the video that each clip takes, `mask_frames` those of the tube, `wanted` all frames of
    the video in order, and `ranges` the bytes of both.
    """

    epoch: int
    sample: int
    video: IndexRecord
    pair: clip_sampling.Pair
    frames: dict[Role, list[int]]
    mask_frames: dict[Role, list[int]]
    wanted: list[int]
    ranges: list[files.Ranges]


@dataclass(frozen=True)
class _MappedIndex(Index):
    """An index whose table is in a file of this machine. Pickled, it is the path of the file."""

    path: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _map_index, (self.uri, self.crawls, self.path)


def _map_index(uri: str, crawls: tuple[Crawl, ...], path: str) -> _MappedIndex:
    with pa.memory_map(path) as file:
        return _MappedIndex(uri, crawls, pa.ipc.open_file(file).read_all(), path)


class PairDataset:
    """The chosen videos of an index as clips of pairs."""

    def __init__(self, index: Index, experiment: Experiment, cache: tuple[str, int] | None = None) -> None:
        """Prepare the chosen videos.

        Args:
            index: The videos.
            experiment: The settings of samples and augmentations.
            cache: As in `processes.conduct.Conduct`; it changes no sample.

        Raises:
            InputError: If a shard is missing, no video can be chosen, or the cache's folder cannot be written to.
        """
        columns = index.table.select(["video_id", "split"]).to_pydict()
        self.index, self.experiment = index, experiment
        self.numbers = clip_sampling.choose_videos(columns["video_id"], columns["split"], experiment.sampling)
        self.speed_task = experiment.objective.speed_weight > 0
        self.cache = BlockCache(*cache, index.uri) if cache else None
        if self.cache:
            files.check_writable(self.cache.folder)
        self._check_shards()

    def _check_shards(self) -> None:
        columns = self.index.table.select(["crawl", "shard"]).group_by(["crawl", "shard"]).aggregate([]).to_pydict()
        wanted: dict[str, set[str]] = {}
        for crawl, shard in zip(columns["crawl"], columns["shard"], strict=True):
            wanted.setdefault(self.index.crawls[crawl].videos, set()).add(video_table.tar_name(shard))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            present = pool.map(files.names, wanted)
        for (videos, tars), found in zip(wanted.items(), present, strict=True):
            if missing := sorted(tars.difference(found)):
                raise InputError(
                    f"{videos} lacks {len(missing)} of the {len(tars)} shards that {self.index.uri} lists, the first "
                    f"is {missing[0]}; restore them, or delete the tables of these shards and {folders.MANIFEST} there "
                    "and run `previts download` again"
                )

    @contextlib.contextmanager
    def mapped(self) -> Iterator["PairDataset"]:
        """Yield the same dataset for worker processes: its index is in a temporary file, so they share its memory."""
        with tempfile.TemporaryDirectory(prefix="previts-") as folder:
            path, table = os.path.join(folder, "index.arrow"), self.index.table
            with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            same = copy.copy(self)
            same.index = _map_index(self.index.uri, self.index.crawls, path)
            yield same

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, steps: Iterable[Sequence[Request]]) -> Iterator[tuple[list[Item], list[Memory]]]:
        """Yield the items of each step, and the memory of each side that contains their clips.

        The bytes of the next step are requested while those of a step are decoded.
        """
        key_roles: tuple[Role, ...] = ("key", "other") if self.speed_task else ("key",)
        pool = ThreadPoolExecutor(read_ahead.REQUESTS)

        def request(step: Sequence[Request]) -> tuple[list[list[_Plan]], files.Read]:
            plans = [
                [self._plan(epoch, query, ("query",)), self._plan(epoch, key, key_roles)]
                for _, epoch, query, key in step
            ]
            ranges = [each for both in plans for plan in both for each in plan.ranges]
            read_remote = self.cache.read_ranges if self.cache else files.read_ranges
            return plans, read_ahead.request(ranges, pool, read_remote)

        def items(
            step: Sequence[Request], plans: list[list[_Plan]], read: files.Read
        ) -> tuple[list[Item], list[Memory]]:
            sides = [self._memory(len(step)) for _ in ("query", *key_roles)]
            loaded = []
            for row, ((number, *_), (query, key)) in enumerate(zip(step, plans, strict=True)):
                first, *others = (Memory(side.clips[row], side.masks[row]) for side in sides)
                loaded.append((number, [*self._load(query, read, [first]), *self._load(key, read, others)]))
            return loaded, sides

        waiting: deque[Any] = deque()
        try:
            for step in steps:
                waiting.append((step, *request(step)))
                if len(waiting) > _AHEAD:
                    yield items(*waiting.popleft())
            while waiting:
                yield items(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def load_clips(self, epoch: int, sample: int, roles: Sequence[Role]) -> list[LoadedClip]:
        """Return clips of a sample. If one of them is damaged, all are grey with `error` set."""
        memory = self._memory(len(roles))
        targets = [Memory(clip, mask) for clip, mask in zip(*memory, strict=True)]
        return self._load(self._plan(epoch, sample, roles), files.read_ranges, targets)

    def _memory(self, rows: int) -> Memory:
        frames, size = self.experiment.sampling.clip_frames, self.experiment.augment.size
        return Memory(
            np.empty((rows, frames, size * 3 // 2, size), np.uint8), np.empty((rows, frames, size, size), np.bool_)
        )

    def _plan(self, epoch: int, sample: int, roles: Sequence[Role]) -> _Plan:
        """Draw which frames the clips of a sample take."""
        video = self.index[self.numbers[sample % len(self.numbers)]]
        pair = clip_sampling.sample_pair(
            video,
            self.experiment.sampling,
            generator(self.experiment.seed, epoch, sample, Purpose.PAIR),
            speed_task=self.speed_task,
        )
        frames = self._frames(pair, epoch, sample, video.num_frames, roles=roles)
        mask_frames = {role: self._mask_frames(pair, role, taken, video.num_frames) for role, taken in frames.items()}
        crawl, wanted = self.index.crawl_of(video), sorted(set().union(*frames.values()))
        ranges = [video_table.byte_ranges(crawl.videos, video, wanted)]
        if pair.constrained:
            ranges.append(tube_table.byte_ranges(crawl.tubes, video))
        return _Plan(epoch, sample, video, pair, frames, mask_frames, wanted, ranges)

    def _load(self, plan: _Plan, read: files.Read, targets: Sequence[Memory]) -> list[LoadedClip]:
        """Return the clips of a plan, each in the memory of its target; `read` reads their bytes."""
        middle, video = self.experiment.sampling.clip_frames // 2, plan.video
        draws = [self._draw(plan, role) for role in plan.frames]
        crawl = self.index.crawl_of(video)
        try:
            masks = self._read_masks(video, plan.mask_frames, read) if plan.pair.constrained else {}
            crops = [self._crop(plan, role, masks.get(taken[middle])) for role, taken in plan.mask_frames.items()]
            for frame, planes in video_table.read_planes(crawl.videos, video, plan.wanted, read):
                matrix = planes.matrix
                for taken, crop, target in zip(plan.frames.values(), crops, targets, strict=True):
                    for place in np.flatnonzero(np.equal(taken, frame)):
                        crop_cutting.crop_frame(planes, crop, target.clips[place])
        except (VideoError, tube_table.DamagedTubeError) as error:
            return [
                _placeholder(video.video_id, target, draw, error=str(error))
                for target, draw in zip(targets, draws, strict=True)
            ]
        made = []
        for taken, crop, target, draw in zip(plan.mask_frames.values(), crops, targets, draws, strict=True):
            if plan.pair.constrained:
                crop_cutting.crop_masks([masks[frame] for frame in taken], crop, target.masks)
            # Without a mask the whole key is the foreground key; the attention loss leaves the pair out.
            masked = plan.pair.constrained and bool(target.masks.any())
            if not masked:
                target.masks[:] = True
            made.append(LoadedClip(video.video_id, target.clips, matrix, target.masks, masked, draw, ""))
        return made

    def _draw(self, plan: _Plan, role: Role) -> NDArray[np.float32]:
        numbers = generator(self.experiment.seed, plan.epoch, plan.sample, Purpose.AUGMENT, _ROLES[role])
        return augment.draw(self.experiment.augment, numbers)

    def _crop(self, plan: _Plan, role: Role, reference: NDArray[np.bool_] | None) -> Box:
        numbers = generator(self.experiment.seed, plan.epoch, plan.sample, Purpose.CROP, _ROLES[role])
        height, width, config = plan.video.height, plan.video.width, self.experiment.sampling
        return crop_cutting.even_crop(
            crop_sampling.sample_crop(reference, height, width, config=config, generator=numbers)
        )

    def _frames(
        self, pair: clip_sampling.Pair, epoch: int, sample: int, num_frames: int, *, roles: Sequence[Role]
    ) -> dict[Role, list[int]]:
        """Return the frames of the video that each clip takes."""
        config, seed = self.experiment.sampling, self.experiment.seed
        speeds = clip_sampling.Speeds(1, 1)
        if self.speed_task:
            speeds = clip_sampling.draw_speeds(config, generator(seed, epoch, sample, Purpose.SPEED))
        return {
            role: clip_sampling.clip_indices(
                _start(pair, role), num_frames, config, speeds.other if role == "other" else speeds.pair
            )
            for role in roles
        }

    def _mask_frames(self, pair: clip_sampling.Pair, role: Role, frames: list[int], num_frames: int) -> list[int]:
        """Return for each frame of a clip the frame whose mask it uses."""
        config = self.experiment.sampling
        if config.visible == "clip":
            return frames
        reference = _start(pair, role) + clip_sampling.reference_offset(config, self.speed_task)
        return [reference % num_frames] * len(frames)

    def _read_masks(
        self, video: IndexRecord, frames: dict[Role, list[int]], read: files.Read
    ) -> dict[int, NDArray[np.bool_]]:
        wanted = sorted(set().union(*frames.values()))
        tubes = self.index.crawl_of(video).tubes
        masks = dict(zip(wanted, tube_table.read_masks(tubes, video, wanted, read), strict=True))
        # Crops are drawn around the object, so it must be where the index says.
        if hidden := [frame for frame in wanted if not masks[frame].any()]:
            raise tube_table.DamagedTubeError(
                f"{self.index.uri} says that the object is visible in frame {hidden[0]}, but its tube in "
                f"{tubes} is empty there"
            )
        return masks


def _start(pair: clip_sampling.Pair, role: Role) -> int:
    start = {"query": pair.query, "key": pair.key, "other": pair.other}[role]
    if start is None:
        raise ValueError("there is no other clip without the speed task")
    return start


def _placeholder(video_id: str, target: Memory, draw_P: NDArray[np.float32], *, error: str) -> LoadedClip:
    crop_cutting.fill_grey(target.clips)
    target.masks[:] = True
    return LoadedClip(video_id, target.clips, _UNKNOWN_MATRIX, target.masks, False, draw_P, error)


def collate(items: list[Item], sides: list[Memory], schedule: Schedule) -> Batch:
    """Join the clips of a step, which are in the memory of their sides."""
    step = items[0][0]
    samples = list(zip(*(samples for _, samples in items), strict=True))
    damaged = {sample.video_id: sample.error for side in samples for sample in side if sample.error}
    query, key, *other = map(_join, samples, sides)
    key_order = torch.from_numpy(schedule.key_order(step))
    return Batch(query, key, other[0] if other else None, key_order, sorted(damaged.items()))


def _join(samples: Sequence[LoadedClip], memory: Memory) -> Side:
    usable = [not sample.error for sample in samples]
    # The next good clip replaces a damaged one, so that batch normalisation sees real images.
    rows = range(len(usable))
    source = [next((other for other in (*rows[row:], *rows[:row]) if usable[other]), row) for row in rows]
    for row, other in enumerate(source):
        if row != other:
            memory.clips[row] = memory.clips[other]
    return Side(
        torch.from_numpy(memory.clips),
        torch.tensor([samples[row].matrix for row in source]),
        torch.from_numpy(memory.masks),
        torch.tensor([sample.masked for sample in samples]),
        torch.tensor(usable),
        torch.from_numpy(np.stack([samples[row].draw for row in source])),
        [sample.video_id for sample in samples],
    )
