"""The verb `fit_saliency`, which trains the saliency model of a corpus."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from previts.config import paper
from previts.errors import InputError
from previts.processes import prefetch
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, exclusive, finished, made
from previts.storage import folders


@exclusive
def fit_saliency(videos: str, root: str, profile: str = "paper", set: Sequence[str] = (), row: str = "") -> str:
    """Train the saliency model of a corpus without labels: Deep-USPS, on handcrafted maps of its frames.

    - saliency.method=rbd, mc, dsr or hs: handcrafted priors, not trained; the result names the prior
    - saliency.method=supervised: uses the detector at fit.weights
    - fit.corpus=all: if the corpus has several crawls, trains on all of them; by default on the first, and the model is
      kept while the corpus grows

    Run the same command again to resume after the last finished round.

    Args:
        videos: URI that `download` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as saliency.method=rbd fit.network=drn_d_22.
        row: Row of the paper whose settings are used. By default, those that all rows share.

    Returns:
        URI of the saliency model, for `saliency`.
    """
    experiment = paper.resolve(row or None, profile, set).experiment
    method, config = experiment.saliency.method, experiment.fit
    decided: dict[str, Any] = {"method": method, "format": FORMATS["saliency_model"]}
    weights = None
    labels = "none: handcrafted maps, random start" if method == "deepusps" else "none: nothing is learned"
    if method in ("deepusps", "supervised") and config.weights:
        from previts.saliency.weights import read_weights

        weights = read_weights(config.weights)
        labels = weights.labels
        # With the kind of the labels: the same tensors can be stored with and without their history.
        decided["weights"] = [weights.sha256, labels.partition(":")[0]]
    if method == "deepusps":
        decided["fit"] = {name: value for name, value in asdict(config).items() if name not in ("weights", "corpus")}
    if method == "supervised" and not weights:
        raise InputError("saliency.method=supervised needs fit.weights: set it to the URI of torchvision's Mask R-CNN")

    def address(fitted_on: str) -> str:
        known = {"videos": finished(fitted_on, "videos"), **decided}
        return folders.address(root, "saliency_model", method, known)

    videos = videos if config.corpus == "all" else _fitted_on(videos, address)
    decided["videos"] = finished(videos, "videos")
    uri = folders.address(root, "saliency_model", method, decided)

    def sweep() -> None:
        if method == "deepusps":
            from previts.saliency import fit

            fit.sweep(uri)

    if done(uri, sweep=sweep):
        return uri
    counts: dict[str, int | float] = {}
    written: tuple[str, ...] = ()
    if method == "deepusps":
        from previts.saliency import fit

        counts, written = fit.fit(videos, config, weights, uri), (fit.NETWORK, fit.SHAPE)
    if method == "supervised" and weights:
        from previts.saliency import supervised

        supervised.write_detector(weights, uri)
        written = (supervised.DETECTOR,)
        labels = f"detector: {weights.labels}"
    inputs = {"videos": videos, **({"weights": config.weights} if weights else {})}
    info = {"method": method, "labels": labels}
    folders.commit(uri, decided, inputs=inputs, counts=counts, info=info, files=written)
    sweep()
    return made(uri)


def _fitted_on(videos: str, address: Callable[[str], str]) -> str:
    """Return the videos of the crawl whose model is used for a corpus: one that has a model, else the first crawl.

    A crawl that was changed keeps the model of its earlier versions.
    """
    from previts.corpus import members

    crawls = members.uris(videos)
    if len(crawls) == 1:
        return videos

    def with_model(crawl: str) -> str:
        inputs = folders.read_manifest(crawl).inputs
        for version in [crawl, *(uri for name, uri in inputs.items() if name.startswith("earlier"))]:
            if folders.is_committed(version) and folders.is_committed(address(version)):
                return version
        return ""

    return next(filter(None, prefetch.requested(crawls, with_model)), crawls[0])
