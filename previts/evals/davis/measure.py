"""The measure of DAVIS-2016: region similarity J, with its mean, recall and decay.

PreViTS table 5. Perazzi et al. 2016, section 5.1. Pure numpy: no models, no files, no randomness.

Shape suffixes: T frames, H W pixels or grid cells.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def jaccard(predicted_THW: NDArray[np.bool_], truth_THW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the region similarity J of each frame: intersection over union, 1 where both masks are empty (DAVIS-2016).

    Raises:
        ValueError: If the two shapes differ.
    """
    if predicted_THW.shape != truth_THW.shape:
        raise ValueError(f"masks must share a shape, got {predicted_THW.shape = }, {truth_THW.shape = }")
    union = (predicted_THW | truth_THW).sum(axis=(-2, -1)).astype(np.float64)
    common = (predicted_THW & truth_THW).sum(axis=(-2, -1)).astype(np.float64)
    return np.asarray(np.divide(common, union, out=np.ones_like(union), where=union > 0))


@dataclass(frozen=True)
class SequenceScore:
    """DAVIS-2016: statistics of one sequence as fractions; decay is first quarter minus last, lower is better."""

    mean: float
    recall: float
    decay: float


def sequence_score(similarity_T: Array) -> SequenceScore:
    """Return mean, recall and decay of the J of one sequence (DAVIS-2016, Perazzi et al. 2016, section 5.1).

    Recall is the share of frames strictly above 0.5. Decay compares the first and the last of four bins. Neighbouring
    bins share their end frames, as in the official toolkit.

    Args:
        similarity_T: J of the scored frames, without the first and the last frame of the sequence.

    Raises:
        ValueError: If there is no frame.
    """
    num_frames = len(similarity_T)
    if not num_frames:
        raise ValueError("a sequence needs at least one scored frame")
    # Paper: the text defines decay as J(t=4) - J(t=1), but its table only makes sense with the toolkit's opposite sign.
    # The toolkit stores these ends in 8 bits, which is wrong above 255 frames; this code uses plain integers.
    ends = (np.round(np.linspace(1, num_frames, 5) + 1e-10) - 1).astype(np.int64)
    first = similarity_T[ends[0] : ends[1] + 1].mean()
    last = similarity_T[ends[3] : ends[4] + 1].mean()
    return SequenceScore(
        mean=float(similarity_T.mean()), recall=float((similarity_T > 0.5).mean()), decay=float(first - last)
    )


def mean_score(scores: list[SequenceScore]) -> SequenceScore:
    """Return the mean over sequences, which count equally whatever their length.

    Raises:
        ValueError: If there is no sequence.
    """
    if not scores:
        raise ValueError("there is no sequence to average")
    columns = np.mean([(score.mean, score.recall, score.decay) for score in scores], axis=0)
    return SequenceScore(*(float(value) for value in columns))
