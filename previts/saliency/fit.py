"""From the videos of a corpus to a saliency model in a folder: frames, handcrafted maps, rounds of Deep-USPS, weights.

PreViTS section 3.2. Whatever takes long is written when it is done (the frames with their maps, each round of each
prior, the last network every tenth of its epochs) and found by the next call. The mathematics lies in `usps.py`.
"""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from previts.config.experiment import PRIORS, FitConfig
from previts.corpus import video_table
from previts.errors import InputError, VideoError
from previts.processes import workers
from previts.processes.progress import progress
from previts.saliency import usps
from previts.saliency.network import SaliencyNetwork, load_weights
from previts.saliency.priors import prior_maps
from previts.storage import files, folders, tensors
from previts.storage.resume import States
from previts.storage.tensors import DAMAGED, delete_checked, read_checked, reason, write_checked

NETWORK = "network.pt"  # the state dict
SHAPE = "network.json"  # how to build the network, and the side of the squares it learned from
DETECTOR = "detector.pt"
FRAMES = "frames.npz"
FUSION, FUSION_SAVES = "fusion.pt", 10
LEAST_KEPT = 0.1  # of a prior's salient pixels, as IoU; a sound training keeps a half


@dataclass(frozen=True)
class Weights:
    """Tensors to start from, by name, with the digest of their file and what is known of the labels behind them."""

    tensors: dict[str, torch.Tensor]
    sha256: str
    labels: str


Arrays = Mapping[str, npt.NDArray[Any]]


def read_weights(uri: str) -> Weights:
    """Return the weights of a file, or of the encoder in a finished folder of `pretrain`.

    Raises:
        InputError: If there is nothing, or nothing that holds tensors alone.
    """
    path = tensors.weights_path(uri, "fit.weights")
    loaded, digest = tensors.load(path, "fit.weights")
    for name in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    named = isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded)
    if not named or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise InputError(f"fit.weights: {path} holds {type(loaded).__name__}, expected tensors by name (a state dict)")
    labels = _labels_of(uri) if path != uri else f"unknown: the weights at {uri} may have been trained with labels"
    # Half precision saves room in a file, not in a training.
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in loaded.items()}
    return Weights(found, digest, labels)


def _labels_of(checkpoint: str) -> str:
    """Return what is known of the labels behind a checkpoint of this project: those behind its tubes."""
    try:
        model = folders.ancestor(checkpoint, "index", "tubes", "saliency", "model")
        known = str(folders.read_manifest(model).info["labels"])
    except (InputError, KeyError):
        return "unknown: an encoder that this project pretrained, on tubes whose making is not recorded any more"
    return (
        f"{known.partition(':')[0]}: an encoder that this project pretrained, on tubes of a model with labels {known}"
    )


def fit(videos_uri: str, config: FitConfig, weights: Weights | None, target_uri: str) -> dict[str, int | float]:
    """Train a saliency network on frames of a corpus and write it to a folder; resumes where an earlier call stopped.

    Returns:
        Counts: with weights how many tensors were given and taken; frames, rounds, loss_first and loss_last of the last
        network, and for each prior the mean agreement of its refined maps with its first ones.

    Raises:
        InputError: If a video cannot be decoded any more, or the weights do not fit the network.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    counts: dict[str, int | float] = {}
    if weights:  # before anything is computed; a part of them may fit, and the manifest says how much
        counts["tensors_given"], counts["tensors_taken"] = len(weights.tensors), _taken(config, weights)
    torch.set_num_threads(workers.alone())
    with workers.pool(workers.alone(), data=target_uri) as run:
        images_NSS3, first = _frames(videos_uri, config, target_uri, run)
        # As arrays: each tensor would travel as an open file of shared memory, and a large network has hundreds.
        start = {name: tensor.numpy() for name, tensor in weights.tensors.items()} if weights else None
        tasks = [(prior, config, start, target_uri) for prior in PRIORS]
        if device.type == "cuda":
            refined = [_refine_prior(task, run) for task in tasks]
        else:  # a small network hardly gains by a second core; a second network does
            refined = list(run(_refine_prior, tasks))
    counts |= {"frames": len(images_NSS3), "rounds": config.rounds}
    for prior, maps_NSS in zip(PRIORS, refined, strict=True):
        counts[f"{prior}_kept"] = round(_agreement(first[prior], maps_NSS, usps.FIRST_THRESHOLDS[prior]), 4)
    if remark := remark_on(counts):
        print(remark, file=sys.stderr)
    network, losses = _fuse(images_NSS3, refined, config, weights, device, target_uri)
    shape = {"network": config.network, "width": config.width, "inputs": config.inputs, "size": config.size}
    files.write_json(files.join(target_uri, SHAPE), shape)
    files.write_bytes(files.join(target_uri, NETWORK), tensors.to_bytes(network.cpu().state_dict()))
    return counts | {"loss_first": round(losses[0], 4), "loss_last": round(losses[-1], 4)}


def remark_on(counts: Mapping[str, int | float]) -> str:
    """Return what to say of a training in which maps collapsed, or nothing: its model would find no object."""
    lost = [prior for prior in PRIORS if counts[f"{prior}_kept"] < LEAST_KEPT]
    if not lost:
        return ""
    return (
        f"hardly anything is left of the priors {', '.join(lost)} in their refined maps (below {LEAST_KEPT:g}): "
        "look at some videos with this model, or raise fit.frames, fit.round_epochs or fit.round_lr"
    )


def _refine_prior(task: tuple[str, FitConfig, Arrays | None, str], run: workers.Run = workers.in_order) -> usps.Levels:
    """Return the maps of one prior after all rounds; the maps after each round are a state in the folder."""
    prior, config, start, target_uri = task
    weights = {name: torch.from_numpy(array) for name, array in start.items()} if start else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frames = read_checked(files.join(target_uri, FRAMES), names=("images", prior), unchecked=True)
    assert frames is not None
    target_NSS: usps.Levels = frames[prior]
    first, states = 0, _rounds(target_uri, prior)
    if found := states.newest():
        first, target_NSS = found[0] + 1, found[1]["maps"]
    for number in range(first, config.rounds):
        training = usps.round_training(number, prior, usps.build_network(config, weights), config, device)
        what = f"Deep-USPS, {prior}, round {number + 1} of {config.rounds}"
        target_NSS = usps.refine_round(training, frames["images"], target_NSS, what, run)
        states.save(number, {"maps": target_NSS})
    return target_NSS


def _rounds(target_uri: str, prior: str) -> States:
    return States(target_uri, f"round-{prior}-{{}}.npz", keep=2, unchecked=True)


def sweep(target_uri: str) -> None:
    """Remove the files that are needed for resuming only from a folder that is finished."""
    for states in (States(target_uri, FUSION), *(_rounds(target_uri, prior) for prior in PRIORS)):
        states.sweep()
    delete_checked(files.join(target_uri, FRAMES))


def load_network(model_uri: str) -> tuple[SaliencyNetwork, int]:
    """Return the network of a finished folder in eval mode, and the side of the squares that it learned from.

    Raises:
        InputError: If it is missing or damaged.
    """
    try:
        shape = files.read_json(files.join(model_uri, SHAPE))
        network = SaliencyNetwork(shape["network"], shape["width"], shape["inputs"])
        data = files.read_bytes(files.join(model_uri, NETWORK))
        network.load_state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except (*DAMAGED, FileNotFoundError) as error:
        raise InputError(
            f"the saliency model at {model_uri} cannot be read ({reason(error)}); delete the folder "
            "and run `previts fit_saliency` again"
        ) from None
    return network.eval(), int(shape["size"])


def _taken(config: FitConfig, weights: Weights) -> int:
    """Return how many tensors of some weights the network takes over."""
    try:
        return load_weights(SaliencyNetwork(config.network, config.width, config.inputs), weights.tensors)
    except ValueError as error:
        raise InputError(
            f"fit.weights = {config.weights}: {error}; the network is {config.network}, fit.width {config.width}"
        ) from None


def _fuse(
    images_NSS3: npt.NDArray[np.uint8],
    refined: list[usps.Levels],
    config: FitConfig,
    weights: Weights | None,
    device: torch.device,
    target_uri: str,
) -> tuple[SaliencyNetwork, list[float]]:
    """Return the network trained on all refined maps, and its mean losses by epoch."""
    training = usps.fusion_training(usps.build_network(config, weights.tensors if weights else None), config, device)
    losses: list[float] = []
    states = States(target_uri, FUSION, unchecked=True)
    if found := states.newest(device):
        training.restore(found[1]["training"])
        losses = found[1]["losses"]
    bar = progress(range(training.epoch, training.epochs), "Deep-USPS, all priors", unit="epoch")
    for epoch in bar:
        losses.append(training.run_epoch(images_NSS3, refined))
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
        if (epoch + 1) % max(1, training.epochs // FUSION_SAVES) == 0:
            states.save(0, {"training": training.state(), "losses": losses})
    return training.network, losses


def choose_frames(num_videos: int, num_frames: Sequence[int], wanted: int) -> list[tuple[int, list[int]]]:
    """Return which frames to learn from: (video, frames), as many of each video as of any other, evenly spaced.

    Where there are more videos than frames wanted, evenly spaced videos give one each.
    """
    videos = list(range(num_videos))
    if wanted < num_videos:
        videos = sorted({round(number * (num_videos - 1) / max(1, wanted - 1)) for number in range(wanted)})
    each, more = divmod(max(wanted, len(videos)), len(videos))
    chosen = []
    for place, video in enumerate(videos):
        count = min(num_frames[video], each + (place < more))
        chosen.append((video, [int((number + 0.5) * num_frames[video] / count) for number in range(count)]))
    return chosen


def _frames(
    videos_uri: str, config: FitConfig, target_uri: str, run: workers.Run
) -> tuple[npt.NDArray[np.uint8], dict[str, usps.Levels]]:
    """Return the squashed frames to learn from, and their handcrafted maps by prior."""
    path = files.join(target_uri, FRAMES)
    known = read_checked(path, unchecked=True)
    if known is None:
        shard_count = int(folders.read_manifest(videos_uri).counts["shards"])
        usable = [row for shard in range(shard_count) for row in video_table.read_shard(videos_uri, shard)]
        usable = [row for row in usable if row.status == "ok"]
        chosen = choose_frames(len(usable), [row.num_frames for row in usable], config.frames)
        tasks = [(videos_uri, usable[video], frames, config.size) for video, frames in chosen]
        done = list(progress(run(_video_frames, tasks), "handcrafted maps", unit="video", total=len(tasks)))
        known = {name: np.concatenate([part[name] for part in done]) for name in ("images", *PRIORS)}
        write_checked(path, known)
    return known["images"], {prior: known[prior] for prior in PRIORS}


def _video_frames(task: tuple[str, video_table.VideoRecord, list[int], int]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return frames of one video and their handcrafted maps, all squashed. The maps are made of the whole frames."""
    videos_uri, video, frames, size = task
    try:
        images_THWC = video_table.read_frames(videos_uri, video, frames)
    except VideoError as error:
        raise video_table.unreadable(videos_uri, video, error) from error
    maps = [prior_maps(image) for image in images_THWC]
    squashed = {"images": np.stack([usps.squash(image, size) for image in images_THWC])}
    for prior in PRIORS:
        squashed[prior] = np.stack([usps.squash(usps.to_levels(found[prior]), size) for found in maps])
    return squashed


def _agreement(one: usps.Levels, other: usps.Levels, threshold: float) -> float:
    """Return the mean intersection over union of the salient pixels of two sets of maps, 1 where both have none."""
    first, last = one > threshold * 255, other > usps.THRESHOLD * 255
    shared, union = (first & last).sum(axis=(1, 2)), (first | last).sum(axis=(1, 2))
    return float(np.where(union, shared / np.maximum(union, 1), 1.0).mean())
