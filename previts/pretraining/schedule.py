"""Samples of each training step, and the counters from which all random numbers are drawn.

PreViTS section 4.1 (epochs, batches), and the order of keys that replaces shuffled batch normalisation. Numbers only:
it depends neither on video files nor on processes.

Shape suffixes: N pairs of all processes.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """The use of a random number, as part of its counter.

    Never 0: numpy seeds two counters that differ only in trailing zeros alike.
    """

    ORDER = 1
    KEY_ORDER = 2
    PAIR = 3
    CROP = 4
    AUGMENT = 5
    SPEED = 6


def generator(*counter: int) -> np.random.Generator:
    """Return a generator that depends only on its counter: (seed, epoch or step, sample, `Purpose`, ...)."""
    return np.random.default_rng(counter)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, videos: int, repeats: int) -> NDArray[np.int64]:
    """Return the samples of an epoch in order; each step takes a slice."""
    rounds = [
        generator(seed, epoch, repeat, Purpose.ORDER).permutation(videos) + repeat * videos for repeat in range(repeats)
    ]
    order = np.concatenate(rounds)
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class Schedule:
    """The samples of each step. An epoch has `max(1, videos // batch_size)` steps.

    A sample is a video, numbered from 0 among the videos that are learned from. If there are fewer videos than a batch
    needs, a video occurs several times in a batch, as samples `video + videos * repeat`, each with its own draws.
    """

    videos: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The steps of one epoch."""
        return max(1, self.videos // self.batch_size)

    @property
    def total_steps(self) -> int:
        """The steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def epoch(self, step: int) -> int:
        """Return the epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def samples(self, step: int) -> NDArray[np.int64]:
        """Return the samples of a step, (N,): row n is the query of pair n."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, epoch, self.videos, math.ceil(self.batch_size / self.videos))
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def key_order(self, step: int) -> NDArray[np.int64]:
        """Return the pair that the key of each row belongs to, (N,): a permutation of the rows of a step.

        So keys are batch-normalised among other samples than their queries, and no images are exchanged between
        processes.
        """
        return generator(self.seed, step, Purpose.KEY_ORDER).permutation(self.batch_size)
