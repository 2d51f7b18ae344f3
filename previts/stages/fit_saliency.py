"""The verb `fit_saliency`: train the saliency model of a corpus."""

from collections.abc import Sequence
from dataclasses import asdict

from previts.config import paper
from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, finished, made
from previts.storage import folders


def fit_saliency(videos: str, root: str, profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Make the saliency model of a corpus: Deep-USPS, learned from handcrafted maps of its own frames, without labels.

    A handcrafted prior (saliency.method=rbd, mc, dsr or hs) has nothing to learn: this records which one it is.
    saliency.method=supervised takes the detector at fit.weights. A call that was stopped goes on after its last round.

    Args:
        videos: URI that `download` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as saliency.method=rbd fit.network=drn_d_22.

    Returns:
        URI of the saliency model, for `saliency`.
    """
    experiment = paper.resolve(None, profile, set).experiment
    method, config = experiment.saliency.method, experiment.fit
    decided = {"videos": finished(videos, "videos"), "method": method, "format": FORMATS["saliency_model"]}
    weights = None
    labels = "none: handcrafted maps, random start" if method == "deepusps" else "none: nothing is learned"
    if method in ("deepusps", "supervised") and config.weights:
        from previts.saliency.weights import read_weights

        weights = read_weights(config.weights)
        labels = weights.labels
        # The kind of the labels too: the same tensors may come with and without their history.
        decided["weights"] = [weights.sha256, labels.partition(":")[0]]
    if method == "deepusps":
        decided["fit"] = {name: value for name, value in asdict(config).items() if name != "weights"}
    if method == "supervised" and not weights:
        raise InputError("saliency.method=supervised needs fit.weights: the URI of weights of torchvision's Mask R-CNN")
    uri = folders.address(root, "saliency_model", method, decided)
    if done(uri):
        return uri
    counts: dict[str, int | float] = {}
    if method == "deepusps":
        from previts.saliency import fit

        counts = fit.fit(videos, config, weights, uri)
    if method == "supervised" and weights:
        from previts.saliency import supervised

        supervised.write_detector(weights, uri)
        labels = f"detector: {weights.labels}"
    inputs = {"videos": videos, **({"weights": config.weights} if weights else {})}
    folders.commit(uri, decided, inputs=inputs, counts=counts, info={"method": method, "labels": labels})
    if method == "deepusps":
        fit.sweep(uri)
    return made(uri)
