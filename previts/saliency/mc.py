"""MC: saliency as the time that a random walk from a region needs until the image border absorbs it.

Jiang et al., "Saliency Detection via Absorbing Markov Chain" (2013). Pure arrays: no I/O, no randomness, no learning.

Shape suffixes: H W pixels, N superpixels (transient nodes).
"""

import numpy as np
from scipy.linalg import solve
from scipy.sparse.csgraph import connected_components

from previts.saliency.superpixels import Array, Bools, Labels, Regions, at_border, pairwise_distance, scale

# Paper: 250 superpixels; here they are those of RBD, about 200. With 250 max F on photographs is 0.01 higher, the mean
# error 0.002 larger, and the four priors together cost 6 ms more.
COLOUR_WEIGHT = 10.0  # per difference scaled to [0, 1]
LEAST_WEIGHT = 1e-5  # of a link, so that none is cut
# Paper: a sum of at most 13, not stated over how many links; from the border of 250 superpixels inwards go about 450.
FRAME_WEIGHT = 13 / 450  # on average of these links: at or below, the border is a frame drawn around the picture
OUTLIER_WEIGHT = 1.1  # in all, of which 1 is the node's own: below, a node is left out of the chain
OUTLIER_SALIENCY = 0.3  # of a neighbour, above which a left out node is salient as well
BINS = 10
SPREAD_SCORE = 2.0  # of the histogram of times: from here on, many regions of the background absorb slowly


def region_saliency(regions: Regions) -> Array:
    """Return the absorbed time of each superpixel, scaled to [0, 1]; all 0 where none differs from the border."""
    count = len(regions.lab)
    if count < 2:
        return np.zeros(count)
    border_N = at_border(regions.labels, count, 1)
    linked_NN = links(regions.adjacent, regions.labels)
    weight_NN = link_weights(pairwise_distance(regions.lab), linked_NN)
    picture_N, border_N = without_frame(weight_NN, linked_NN, regions.adjacent, border_N)
    kept_N = picture_N.copy()
    kept_N[picture_N] = kept_nodes(
        weight_NN[np.ix_(picture_N, picture_N)], linked_NN[np.ix_(picture_N, picture_N)], border_N[picture_N]
    )
    saliency_N = np.zeros(count)
    saliency_N[kept_N] = walk_saliency(weight_NN[np.ix_(kept_N, kept_N)], border_N[kept_N])
    near_N = (linked_NN & (saliency_N > OUTLIER_SALIENCY) & kept_N).any(axis=1)
    return np.where(kept_N, saliency_N, near_N & picture_N)


def links(adjacent_NN: Bools, labels_HW: Labels) -> Bools:
    """Return which nodes a step of the walk joins: neighbours, across opposite image sides too, and theirs in turn."""
    near_NN = adjacent_NN.copy()
    for one, other in ((labels_HW[0], labels_HW[-1]), (labels_HW[:, 0], labels_HW[:, -1])):
        near_NN[one, other] = near_NN[other, one] = True
    step_NN = near_NN.astype(np.float32)
    return np.asarray(step_NN @ step_NN > 0)


def link_weights(colour_NN: Array, linked_NN: Bools) -> Array:
    """Return exp(-10 d) for links, d their colour distance scaled to [0, 1]; 1 on the diagonal, 0 elsewhere."""
    weight_NN = np.zeros_like(colour_NN)
    pairs_NN = linked_NN & ~np.eye(len(colour_NN), dtype=np.bool_)
    weight_NN[pairs_NN] = np.exp(-COLOUR_WEIGHT * scale(colour_NN[pairs_NN])) + LEAST_WEIGHT
    np.fill_diagonal(weight_NN, 1)
    return weight_NN


def without_frame(weight_NN: Array, linked_NN: Bools, adjacent_NN: Bools, border_N: Bools) -> tuple[Bools, Bools]:
    """Return the nodes of the picture and its border: the next ring, if the outer one is a frame of another colour."""
    inwards_NN = linked_NN & border_N[:, None] & ~border_N[None]
    if not inwards_NN.any() or weight_NN[inwards_NN].mean() > FRAME_WEIGHT:
        return np.ones_like(border_N), border_N
    return ~border_N, ~border_N & adjacent_NN[border_N].any(axis=0)


def kept_nodes(weight_NN: Array, linked_NN: Bools, border_N: Bools) -> Bools:
    """Return the nodes that are like any neighbour; all, if without the others some walk would never end."""
    kept_N = np.asarray(weight_NN.sum(axis=1) >= OUTLIER_WEIGHT)
    _, part_N = connected_components(linked_NN[np.ix_(kept_N, kept_N)], directed=False)
    if not kept_N.any() or len(np.unique(part_N[border_N[kept_N]])) < len(np.unique(part_N)):
        return np.ones_like(kept_N)
    return kept_N


def walk_saliency(weight_NN: Array, border_N: Bools) -> Array:
    """Return the absorbed times scaled to [0, 1]; weighted by 1 / equilibrium if most of them are of middling size."""
    time_N = scale(absorbed_time(weight_NN, border_N, np.ones(len(weight_NN))))
    if spread(time_N) < SPREAD_SCORE:
        return time_N
    equilibrium_N = weight_NN.sum(axis=1) / weight_NN.sum()
    return scale(absorbed_time(weight_NN, border_N, 1 / equilibrium_N))


def absorbed_time(weight_NN: Array, border_N: Bools, cost_N: Array) -> Array:
    """Return the expected cost of a walk from each node until it is absorbed, `cost_N` for each visit of a node.

    Each border node has an absorbing copy with the same links: (I - Q)^-1 cost, Q = D^-1 W, D the row sums of W and of
    its border columns.
    """
    total_N = weight_NN.sum(axis=1) + weight_NN[:, border_N].sum(axis=1)
    # (D - W) time = D cost: symmetric, and positive definite because every part of the graph reaches the border.
    return np.asarray(solve(np.diag(total_N) - weight_NN, total_N * cost_N, assume_a="pos"))


def spread(time_N: Array) -> float:
    """Return how far from both ends of [0, 1] the times lie: 1 if at the ends, 5 if in the middle."""
    share, _ = np.histogram(time_N, bins=BINS, range=(0, 1))
    bins = np.arange(1, BINS + 1)
    return float((share / len(time_N)) @ np.minimum(bins, BINS + 1 - bins))
