"""Which samples each step of a training takes, and the counters that everything random is drawn from.

PreViTS section 4.1 (epochs, batches) and the order of keys that stands for shuffled batch normalisation. Numbers only:
it knows neither videos nor processes.

Shape suffixes: N pairs of all processes.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a random number is for: part of its counter. Not 0, for a counter may be followed by zeros unseen."""

    ORDER = 1
    KEY_ORDER = 2
    PAIR = 3
    CROP = 4
    AUGMENT = 5
    SPEED = 6


def generator(*counter: int) -> np.random.Generator:
    """Return random numbers that the counter alone decides: (seed, epoch or step, sample, `Purpose`, ...)."""
    return np.random.default_rng(counter)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, videos: int, repeats: int) -> NDArray[np.int64]:
    """Return the samples of an epoch in their order; every step of it takes a piece."""
    rounds = [
        generator(seed, epoch, repeat, Purpose.ORDER).permutation(videos) + repeat * videos for repeat in range(repeats)
    ]
    order = np.concatenate(rounds)
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class Schedule:
    """Which samples each step takes. An epoch has `max(1, videos // batch_size)` steps.

    A sample is a video, numbered from 0 within those learnt from. With fewer videos than a batch needs, videos come
    several times in a batch, as samples `video + videos * repeat`, each with draws of its own.
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
        """Return which pair the key of each row belongs to, (N,): a permutation of the rows of a step.

        Keys are thus batch-normalised among other samples than their queries, and no image has to travel for that.
        """
        return generator(self.seed, step, Purpose.KEY_ORDER).permutation(self.batch_size)
