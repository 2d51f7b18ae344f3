"""MC: absorbing Markov Chain (Jiang et al. 2013), a saliency prior from the times in which random walks are absorbed.

The paper is "Saliency Detection via Absorbing Markov Chain". The saliency of a region is the expected time of a random
walk from it until the image border absorbs it. Pure functions of arrays: no I/O, no randomness, no learning.

Shape suffixes: H W pixels, N superpixels (transient nodes).
"""

import numpy as np
from scipy.linalg import solve
from scipy.sparse.csgraph import connected_components

from previts.saliency.superpixels import Array, Bools, Labels, Regions, at_border, pairwise_distance, scale

# Paper: 250 superpixels. Here they are those of RBD, about 200. With 250, max F on photographs is 0.01 higher, the mean
# error is 0.002 larger, and the four priors together cost 6 ms more.
COLOUR_WEIGHT = 10.0  # factor of a colour distance in [0, 1]
LEAST_WEIGHT = 1e-5  # of a link, so that no link is cut
# Paper: a sum of at most 13; the number of links is not stated. 250 superpixels have about 450 links from the border
# inwards.
FRAME_WEIGHT = 13 / 450  # mean of these links; at or below it, the border is a frame drawn around the image
OUTLIER_WEIGHT = 1.1  # sum over a node's links, 1 of which is its own; below it, the chain excludes the node
OUTLIER_SALIENCY = 0.3  # a node that the chain excludes is salient if a neighbour's saliency is above this
BINS = 10
SPREAD_SCORE = 2.0  # of the histogram of times; from this value on, many background regions have long absorbed times


def region_saliency(regions: Regions) -> Array:
    """Return the absorbed time of each superpixel, scaled to [0, 1]; all 0 if none differs from the border."""
    count = len(regions.lab)
    if count < 2:
        return np.zeros(count)
    border_N = at_border(regions.labels, count, 1)
    linked_NN = links(regions.adjacent, regions.labels)
    weight_NN = link_weights(pairwise_distance(regions.lab), linked_NN)
    inner_N, border_N = without_frame(weight_NN, linked_NN, regions.adjacent, border_N)
    kept_N = inner_N.copy()
    kept_N[inner_N] = kept_nodes(
        weight_NN[np.ix_(inner_N, inner_N)], linked_NN[np.ix_(inner_N, inner_N)], border_N[inner_N]
    )
    saliency_N = np.zeros(count)
    saliency_N[kept_N] = walk_saliency(weight_NN[np.ix_(kept_N, kept_N)], border_N[kept_N])
    near_N = (linked_NN & (saliency_N > OUTLIER_SALIENCY) & kept_N).any(axis=1)
    return np.where(kept_N, saliency_N, near_N & inner_N)


def links(adjacent_NN: Bools, labels_HW: Labels) -> Bools:
    """Return which pairs of nodes are linked: neighbours and their neighbours.

    Nodes at opposite sides of the image count as neighbours.
    """
    near_NN = adjacent_NN.copy()
    for one, other in ((labels_HW[0], labels_HW[-1]), (labels_HW[:, 0], labels_HW[:, -1])):
        near_NN[one, other] = near_NN[other, one] = True
    step_NN = near_NN.astype(np.float32)
    return np.asarray(step_NN @ step_NN > 0)


def link_weights(colour_NN: Array, linked_NN: Bools) -> Array:
    """Return exp(-10 d) + 1e-5 for links, d their colour distance scaled to [0, 1]; the diagonal is 1, the rest 0."""
    weight_NN = np.zeros_like(colour_NN)
    pairs_NN = linked_NN & ~np.eye(len(colour_NN), dtype=np.bool_)
    weight_NN[pairs_NN] = np.exp(-COLOUR_WEIGHT * scale(colour_NN[pairs_NN])) + LEAST_WEIGHT
    np.fill_diagonal(weight_NN, 1)
    return weight_NN


def without_frame(weight_NN: Array, linked_NN: Bools, adjacent_NN: Bools, border_N: Bools) -> tuple[Bools, Bools]:
    """Return the nodes inside of a frame, and their border; without a frame, all nodes and the given border.

    The border is a frame if its links inwards are weak: its colour differs from that of the next ring of nodes.
    """
    inwards_NN = linked_NN & border_N[:, None] & ~border_N[None]
    if not inwards_NN.any() or weight_NN[inwards_NN].mean() > FRAME_WEIGHT:
        return np.ones_like(border_N), border_N
    return ~border_N, ~border_N & adjacent_NN[border_N].any(axis=0)


def kept_nodes(weight_NN: Array, linked_NN: Bools, border_N: Bools) -> Bools:
    """Return the nodes that resemble at least one neighbour.

    Returns all nodes if some walk would never end without the others.
    """
    kept_N = np.asarray(weight_NN.sum(axis=1) >= OUTLIER_WEIGHT)
    _, part_N = connected_components(linked_NN[np.ix_(kept_N, kept_N)], directed=False)
    if not kept_N.any() or len(np.unique(part_N[border_N[kept_N]])) < len(np.unique(part_N)):
        return np.ones_like(kept_N)
    return kept_N


def walk_saliency(weight_NN: Array, border_N: Bools) -> Array:
    """Return the absorbed times scaled to [0, 1], weighted by 1 / equilibrium if most of them are near the middle."""
    time_N = scale(absorbed_time(weight_NN, border_N, np.ones(len(weight_NN))))
    if spread(time_N) < SPREAD_SCORE:
        return time_N
    equilibrium_N = weight_NN.sum(axis=1) / weight_NN.sum()
    return scale(absorbed_time(weight_NN, border_N, 1 / equilibrium_N))


def absorbed_time(weight_NN: Array, border_N: Bools, cost_N: Array) -> Array:
    """Return the expected cost of a walk from each node until it is absorbed; each visit of node i costs `cost_N[i]`.

    Each border node has an absorbing copy with the same links. The result is (I - Q)^-1 cost, where Q = D^-1 W, and D
    are the row sums of W plus those of its border columns.
    """
    total_N = weight_NN.sum(axis=1) + weight_NN[:, border_N].sum(axis=1)
    # Solved as (D - W) time = D cost: symmetric, and positive definite because every node has a path to the border.
    return np.asarray(solve(np.diag(total_N) - weight_NN, total_N * cost_N, assume_a="pos"))


def spread(time_N: Array) -> float:
    """Return the mean distance of the times from the nearer end of [0, 1] in bins: 1 at the ends, 5 in the middle."""
    share, _ = np.histogram(time_N, bins=BINS, range=(0, 1))
    bins = np.arange(1, BINS + 1)
    return float((share / len(time_N)) @ np.minimum(bins, BINS + 1 - bins))
