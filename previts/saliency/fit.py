"""Training of a saliency model on the videos of a corpus, and the files of the model.

PreViTS section 3.2. The steps are frames, handcrafted maps, rounds of Deep-USPS and the last network. Results that take
long are written when they are complete: the frames with their maps, each round of each prior, and the last network
every tenth of its epochs. The next call resumes from them. `usps.py` contains the mathematics.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from previts.config.perception import PRIORS, FitConfig
from previts.corpus import members, video_table, withdrawals
from previts.errors import InputError, VideoError
from previts.processes import workers
from previts.processes.progress import progress
from previts.saliency import usps
from previts.saliency.network import SaliencyNetwork, load_weights
from previts.saliency.priors import prior_maps
from previts.saliency.weights import Weights
from previts.storage import documents, fences, files, folders, tensors
from previts.storage.states import States
from previts.storage.tensors import delete_checked, read_checked, write_checked

NETWORK = "network.pt"  # the state dict
SHAPE = "network.json"  # arguments of the network, and the side of the squares that it was trained on
FRAMES = "frames.npz"
FUSION, FUSION_SAVES = "fusion.pt", 10
LEAST_KEPT = 0.1  # IoU of a prior's salient pixels before and after the rounds; about 0.5 in a good training

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Shape:
    network: Literal["drn_d_105", "drn_d_22"]
    width: float
    inputs: Literal["rgb", "contrast"]
    size: int


def fit(videos_uri: str, config: FitConfig, weights: Weights | None, target_uri: str) -> dict[str, int | float]:
    """Train a saliency network on frames of a corpus and write it to a folder; resume if an earlier call was stopped.

    Returns:
        Counts: frames; rounds; loss_first and loss_last of the last network; for each prior PRIOR_kept, the mean IoU of
        its refined maps and its handcrafted maps; with weights also tensors_given and tensors_taken.

    Raises:
        InputError: If a stored video cannot be decoded, or the weights do not fit the network.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    counts: dict[str, int | float] = {}
    if weights:  # checked before the long work; only a part of them may fit, and the manifest records how many
        counts["tensors_given"], counts["tensors_taken"] = len(weights.tensors), _count_fitting(config, weights)
    torch.set_num_threads(workers.alone())
    with workers.pool(workers.alone(), data=target_uri) as run:
        images_NSS3, first = _frames(videos_uri, config, target_uri, run)
        # Sent to the workers as arrays: each tensor would take an open file of shared memory, and a large network has
        # hundreds.
        start = {name: tensor.numpy() for name, tensor in weights.tensors.items()} if weights else None
        tasks = [(prior, config, start, target_uri) for prior in PRIORS]
        if device.type == "cuda":
            refined = [_refine_prior(task, run) for task in tasks]
        else:  # a second core is more useful for a second network than for the same small network
            refined = list(run(_refine_prior, tasks))
    counts |= {"frames": len(images_NSS3), "rounds": config.rounds}
    for prior, maps_NSS in zip(PRIORS, refined, strict=True):
        counts[f"{prior}_kept"] = round(_mean_iou(first[prior], maps_NSS, usps.FIRST_THRESHOLDS[prior]), 4)
    if warning := collapse_warning(counts):
        print(warning, file=sys.stderr)
    network, losses = _fuse(images_NSS3, refined, config, weights, device=device, target_uri=target_uri)
    fences.check(target_uri)
    shape = _Shape(config.network, config.width, config.inputs, config.size)
    files.write_json(files.join(target_uri, SHAPE), asdict(shape))
    files.write_bytes(files.join(target_uri, NETWORK), tensors.to_bytes(network.cpu().state_dict()))
    return counts | {"loss_first": round(losses[0], 4), "loss_last": round(losses[-1], 4)}


def collapse_warning(counts: Mapping[str, int | float]) -> str:
    """Return a warning if the maps of a prior collapsed, else ""; a model of such maps finds no object."""
    lost = [prior for prior in PRIORS if counts[f"{prior}_kept"] < LEAST_KEPT]
    if not lost:
        return ""
    return (
        f"the refined maps of the priors {', '.join(lost)} have lost most of their salient pixels "
        f"(IoU below {LEAST_KEPT:g}): check some videos with this model, or raise fit.frames, fit.round_epochs or "
        "fit.round_lr"
    )


def _refine_prior(task: tuple[str, FitConfig, Arrays | None, str], run: workers.Run = workers.in_order) -> usps.Levels:
    """Return the maps of one prior after all rounds; the maps of each round are a state in the folder."""
    prior, config, start, target_uri = task
    weights = {name: torch.from_numpy(array) for name, array in start.items()} if start else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frames = read_checked(files.join(target_uri, FRAMES), names=("images", prior))
    assert frames is not None
    target_NSS: usps.Levels = frames[prior]
    first, states = 0, _rounds(target_uri, prior)
    if found := states.newest():
        first = found[0] + 1
        with states.restoring(found[0]):
            target_NSS = found[1]["maps"].reshape(target_NSS.shape)
    for number in range(first, config.rounds):
        training = usps.round_training(number, prior, usps.build_network(config, weights), config, device)
        what = f"Deep-USPS, {prior}, round {number + 1} of {config.rounds}"
        target_NSS = usps.refine_round(training, frames["images"], target_NSS, what, run)
        states.save(number, {"maps": target_NSS})
    return target_NSS


def _rounds(target_uri: str, prior: str) -> States:
    return States(target_uri, f"round-{prior}-{{}}.npz", keep=2)


def sweep(target_uri: str) -> None:
    """Delete the files from a finished folder that only a resumed call needs."""
    for states in (States(target_uri, FUSION), *(_rounds(target_uri, prior) for prior in PRIORS)):
        states.sweep()
    delete_checked(files.join(target_uri, FRAMES))


def load_network(model_uri: str) -> tuple[SaliencyNetwork, int]:
    """Return the network of a finished folder in eval mode, and the side of the squares that it was trained on.

    Raises:
        InputError: If a file is missing or damaged.
    """
    remedy = "delete the folder and run `previts fit_saliency` again"
    try:
        data = folders.read_file(model_uri, SHAPE)
        document = documents.parse_json(data, files.join(model_uri, SHAPE), remedy)
        shape = documents.from_json(_Shape, document, files.join(model_uri, SHAPE), remedy)
        try:
            FitConfig(shape.network, shape.width, shape.inputs, size=shape.size)
        except InputError as error:
            raise InputError(f"{files.join(model_uri, SHAPE)}: {error}; {remedy}") from None
        network = SaliencyNetwork(shape.network, shape.width, shape.inputs)
        network.load_state_dict(tensors.parse(folders.read_file(model_uri, NETWORK)))
    except (tensors.DamagedError, FileNotFoundError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(
            f"the saliency model at {model_uri} cannot be read ({tensors.reason(error)}); {remedy}"
        ) from None
    return network.eval(), shape.size


def _count_fitting(config: FitConfig, weights: Weights) -> int:
    """Return how many tensors of the weights fit the network."""
    try:
        return load_weights(SaliencyNetwork(config.network, config.width, config.inputs), weights.tensors)
    except ValueError as error:
        raise InputError(
            f"fit.weights = {config.weights}: {error}; give weights for fit.network = {config.network} with "
            f"fit.width = {config.width}, or change these settings"
        ) from None


def _fuse(
    images_NSS3: npt.NDArray[np.uint8],
    refined: list[usps.Levels],
    config: FitConfig,
    weights: Weights | None,
    *,
    device: torch.device,
    target_uri: str,
) -> tuple[SaliencyNetwork, list[float]]:
    """Return the network trained on all refined maps, and its mean loss in each epoch."""
    training = usps.fusion_training(usps.build_network(config, weights.tensors if weights else None), config, device)
    losses: list[float] = []
    states = States(target_uri, FUSION)
    if found := states.newest(device):
        with states.restoring(found[0]):
            training.restore(found[1]["training"])
            losses = list(found[1]["losses"])
    bar = progress(range(training.epoch, training.epochs), "Deep-USPS, all priors", unit="epoch")
    for epoch in bar:
        losses.append(training.run_epoch(images_NSS3, refined))
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
        if (epoch + 1) % max(1, training.epochs // FUSION_SAVES) == 0:
            states.save(0, {"training": training.state(), "losses": losses})
    return training.network, losses


def choose_frames(num_videos: int, num_frames: Sequence[int], wanted: int) -> list[tuple[int, list[int]]]:
    """Return the frames to learn from, as pairs (video, frames).

    Each video contributes the same number of evenly spaced frames, or one more. If there are more videos than frames
    wanted, evenly spaced videos contribute one frame each.

    Args:
        num_videos: Number of usable videos.
        num_frames: Number of frames of each video.
        wanted: Number of frames to learn from.
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
    """Return the frames to learn from as squares, and their handcrafted maps by prior."""
    path = files.join(target_uri, FRAMES)
    known = read_checked(path, names=("images", *PRIORS))
    if known is None:
        ledger = withdrawals.read(withdrawals.root_of(videos_uri))
        usable = [
            (crawl.uri, row)
            for crawl in members.read(videos_uri)
            for shard in range(crawl.shards)
            for row in video_table.read_shard(crawl.uri, shard)
            if row.status == "ok" and not video_table.is_withdrawn(row, ledger)
        ]
        if not usable:
            raise InputError(f"no video of {videos_uri} is stored and not withdrawn; fit the model on another crawl")
        chosen = choose_frames(len(usable), [row.num_frames for _, row in usable], config.frames)
        tasks = [(*usable[video], frames, config.size) for video, frames in chosen]
        done = list(progress(run(_video_frames, tasks), "handcrafted maps", unit="video", total=len(tasks)))
        known = {name: np.concatenate([part[name] for part in done]) for name in ("images", *PRIORS)}
        write_checked(path, known)
    return known["images"], {prior: known[prior] for prior in PRIORS}


def _video_frames(task: tuple[str, video_table.VideoRecord, list[int], int]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return frames of one video and their handcrafted maps, resized to squares after the maps are computed."""
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


def _mean_iou(first_NSS: usps.Levels, last_NSS: usps.Levels, threshold: float) -> float:
    """Return the mean IoU of the salient pixels of the first and the last maps, 1 for images without any.

    Args:
        first_NSS: Handcrafted maps.
        last_NSS: Refined maps; their threshold is that of Deep-USPS.
        threshold: Of the first maps, in [0, 1].
    """
    first, last = first_NSS > threshold * 255, last_NSS > usps.THRESHOLD * 255
    shared, union = (first & last).sum(axis=(1, 2)), (first | last).sum(axis=(1, 2))
    return float(np.where(union, shared / np.maximum(union, 1), 1.0).mean())
