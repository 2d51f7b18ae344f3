"""Deep-USPS: Deep Unsupervised Saliency Prediction with Self-supervision (Nguyen et al. 2019), trained on prior maps.

PreViTS section 3.2; the paper is "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision". For
each handcrafted prior, a network is trained in rounds, first on the prior's maps. The moving average of its predictions
over the epochs, refined by a CRF, is the target of the next round. Then one network is trained on the maps of all
priors. Functions of arrays and networks; `fit.py` stores states between rounds.

Shape suffixes: N images of the corpus, B images of a batch, P priors, S side of the squashed images, H W pixels.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from previts.config.perception import FitConfig
from previts.processes import workers
from previts.processes.progress import progress
from previts.saliency import crf
from previts.saliency.network import SaliencyNetwork, encode, load_weights, memory_format

Levels = npt.NDArray[np.uint8]  # maps in [0, 1] as 0 to 255
# From numbers of images (B) and their predicted maps (B, S, S) to refined maps (B, S, S).
Refine = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]]

# Pixels of a handcrafted map above this are salient in the first round. Deep-USPS chose the values on its images.
FIRST_THRESHOLDS = {"rbd": 0.25, "mc": 0.31, "dsr": 0.23, "hs": 0.36}
THRESHOLD = 0.5  # of averaged predictions
POLY_POWER = 0.9
EPSILON = 1e-5


def f_measure_loss(saliency_BHW: Tensor, target_BHW: Tensor, threshold: float, beta2: float) -> Tensor:
    """Return the mean over images of 1 - F of a soft prediction against a thresholded target.

    A pixel counts as correct and passes no gradient if its prediction is farther on the target's side of the threshold
    than the target itself.

    Args:
        saliency_BHW: Prediction in [0, 1].
        target_BHW: Map in [0, 1]; pixels above the threshold are salient.
        threshold: Of the target.
        beta2: beta^2 of the F-measure; above 1, recall has more weight than precision.

    Raises:
        ValueError: If the shapes differ.
    """
    if saliency_BHW.shape != target_BHW.shape:
        raise ValueError(f"shapes must agree, got {saliency_BHW.shape = }, {target_BHW.shape = }")
    salient_BHW = target_BHW > threshold
    saliency_BHW = saliency_BHW.masked_fill(salient_BHW & (saliency_BHW > target_BHW), 1.0)
    saliency_BHW = saliency_BHW.masked_fill((target_BHW < threshold) & (saliency_BHW < target_BHW), 0.0)
    truth_BHW = salient_BHW.to(saliency_BHW.dtype)
    hits_B, found_B, true_B = (x.sum(dim=(1, 2)) for x in (saliency_BHW * truth_BHW, saliency_BHW, truth_BHW))
    precision_B, recall_B = hits_B / (found_B + EPSILON), hits_B / (true_B + EPSILON)
    f_B = (1 + beta2) * precision_B * recall_B / (beta2 * precision_B + recall_B + EPSILON)
    return (1 - f_B).mean()


class History:
    """Moving average of the predictions for each image: m <- momentum m + (1 - momentum) p, once per epoch."""

    # Paper: the average starts at 0, so it is too low by the factor 1 - momentum ^ epochs (1e-4 too low after 25). Here
    # it is divided by this factor, so that the threshold means the same after few epochs as after many.

    def __init__(self, count: int, side: int, momentum: float, refine: Refine | None = None) -> None:
        self.sum_NSS = np.zeros((count, side, side), dtype=np.float16)
        self.momentum = momentum
        self.refine = refine
        self.epochs_N = np.zeros(count, dtype=np.int64)

    def add(self, numbers: npt.NDArray[np.int64], saliency_BSS: npt.NDArray[np.float32]) -> None:
        """Add the predictions for some images; `refine` is applied to them first, if it was given."""
        if self.refine is not None:
            saliency_BSS = self.refine(numbers, saliency_BSS)
        self.sum_NSS[numbers] = self.momentum * self.sum_NSS[numbers] + (1 - self.momentum) * saliency_BSS
        self.epochs_N[numbers] += 1

    def levels(self) -> Levels:
        """Return the averages as maps of 0 to 255."""
        known_N = 1 - self.momentum**self.epochs_N
        mean_NSS = self.sum_NSS.astype(np.float32) / np.maximum(known_N, EPSILON)[:, None, None].astype(np.float32)
        return to_levels(mean_NSS)


def to_levels(saliency: npt.NDArray[np.float32]) -> Levels:
    """Return maps in [0, 1] as 0 to 255."""
    return np.asarray(np.rint(saliency.clip(0, 1) * 255), dtype=np.uint8)


def squash(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Return an image or map resized to a square."""
    return resize(image, side, side)


def resize(image: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Return an image or map in another shape: area means if it shrinks in both directions, else bilinear."""
    shrinks = image.shape[0] >= rows and image.shape[1] >= columns
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def build_network(config: FitConfig, weights: Mapping[str, Tensor] | None) -> SaliencyNetwork:
    """Return the initial network of a training: random by the seed, then loaded with the given weights that fit.

    Raises:
        ValueError: If no weight of a convolution fits.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = SaliencyNetwork(config.network, config.width, config.inputs)
    if weights is not None:
        load_weights(network, dict(weights))
    return network


class Training:
    """Training of one network by Adam, with polynomial decay of the learning rate over the epochs.

    # Paper: here the last, smaller batch of an epoch is used too, so that each image has a history.

    Args:
        network: Network with initial weights; trained in place.
        config: Settings.
        device: Device to train on.
        epochs: Number of epochs.
        lr: Learning rate of the first epoch.
        beta2: beta^2 of the loss.
        threshold: Threshold of the targets.
        salt: Numbers that separate the random numbers of this training from those of other trainings.
    """

    def __init__(
        self,
        network: SaliencyNetwork,
        config: FitConfig,
        device: torch.device,
        *,
        epochs: int,
        lr: float,
        beta2: float,
        threshold: float,
        salt: tuple[int, ...],
    ) -> None:
        self.network, self.config, self.device = network, config, device
        self.epochs, self.lr, self.beta2, self.threshold, self.salt = epochs, lr, beta2, threshold, salt
        self.epoch = 0
        self.layout = memory_format(device)
        network.to(device, memory_format=self.layout).train()  # type: ignore[call-overload]
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(learned, lr=lr)

    def state(self) -> dict[str, Any]:
        """Return the state after the last epoch, for `restore`."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.epoch = int(state["epoch"])
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])

    def run_epoch(
        self, images_NSS3: npt.NDArray[np.uint8], target_PNSS: Sequence[Levels], history: History | None = None
    ) -> float:
        """Train on each image once and return the mean loss; add the predictions of the training to the history.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * (1 - self.epoch / self.epochs) ** POLY_POWER
        generator = np.random.default_rng([self.config.seed, *self.salt, self.epoch])
        losses = []
        for numbers in minibatches(generator.permutation(len(images_NSS3)), self.config.batch_size):
            flips = torch.from_numpy(generator.random(len(numbers)) < self.config.flip_probability).to(self.device)
            images = self._load(images_NSS3[numbers], flips)
            if self.config.recolour_probability:
                images = recolour(images, self.config.recolour_probability, generator)
            images = encode(images, self.network.inputs)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                saliency = self.network(images.contiguous(memory_format=self.layout))
            targets = [self._load(maps[numbers], flips).float().div_(255) for maps in target_PNSS]
            loss = torch.stack([f_measure_loss(saliency, maps, self.threshold, self.beta2) for maps in targets]).mean()
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"Deep-USPS: the loss became {loss.item()} in epoch {self.epoch + 1}; "
                    "lower fit.round_lr or fit.fusion_lr"
                )
            if history is not None:
                history.add(numbers, _flipped(saliency.detach(), flips).cpu().numpy())
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            losses.append(loss.item())
        self.epoch += 1
        return float(np.mean(losses))

    def _load(self, arrays_B: npt.NDArray[np.uint8], flips_B: Tensor) -> Tensor:
        return _flipped(torch.from_numpy(arrays_B).to(self.device), flips_B)


def round_training(
    number: int, prior: str, network: SaliencyNetwork, config: FitConfig, device: torch.device
) -> Training:
    """Return the training on the maps of one prior; in round 0 these are its handcrafted maps."""
    return Training(
        network, config, device,
        epochs=config.round_epochs, lr=config.round_lr[number], beta2=config.round_beta2,
        threshold=FIRST_THRESHOLDS[prior] if number == 0 else THRESHOLD,
        salt=(1, list(FIRST_THRESHOLDS).index(prior), number),
    )  # fmt: skip


def fusion_training(network: SaliencyNetwork, config: FitConfig, device: torch.device) -> Training:
    """Return the training on the refined maps of all priors."""
    return Training(
        network, config, device,
        epochs=config.fusion_epochs, lr=config.fusion_lr, beta2=config.fusion_beta2, threshold=THRESHOLD, salt=(2,),
    )  # fmt: skip


def refine_round(
    training: Training, images_NSS3: npt.NDArray[np.uint8], target_NSS: Levels, what: str, run: workers.Run
) -> Levels:
    """Train a network on the maps of one prior and return the moving average of its predictions during training.

    Args:
        training: Training from `round_training` that has not started.
        images_NSS3: Frames, resized to squares.
        target_NSS: Maps to learn from.
        what: Name of the round, for the progress bar.
        run: Worker processes for the CRF.
    """
    config = training.config
    refine = functools.partial(_refined, images_NSS3=images_NSS3, run=run)
    each = config.history_crf == "each"
    history = History(len(images_NSS3), config.size, config.history_momentum, refine if each else None)
    bar = progress(range(training.epochs), what, unit="epoch")
    for _ in bar:
        bar.set_postfix(loss=f"{training.run_epoch(images_NSS3, [target_NSS], history):.3f}")
    levels = history.levels()
    if each:
        return levels
    return to_levels(refine(np.arange(len(levels)), levels.astype(np.float32) / np.float32(255)))


def _refined(
    numbers: npt.NDArray[np.int64],
    saliency_BSS: npt.NDArray[np.float32],
    *,
    images_NSS3: npt.NDArray[np.uint8],
    run: workers.Run,
) -> npt.NDArray[np.float32]:
    scale = images_NSS3.shape[1] / crf.SIDE
    tasks = [(saliency, image, scale) for saliency, image in zip(saliency_BSS, images_NSS3[numbers], strict=True)]
    return np.stack(list(run(_refine_one, tasks)))


def _refine_one(task: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], float]) -> npt.NDArray[np.float32]:
    return crf.refine(*task)


def minibatches(order_N: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of `size` numbers; a single last one joins the batch before, as batch normalisation needs two."""
    starts = list(range(0, len(order_N), size))
    if len(starts) > 1 and len(order_N) - starts[-1] == 1:
        starts.pop()
    for place, start in enumerate(starts):
        yield order_N[start : starts[place + 1] if place + 1 < len(starts) else len(order_N)]


def recolour(images_BHWC: Tensor, probability: float, generator: np.random.Generator) -> Tensor:
    """Return float images in [0, 255] with permuted channels and random saturation, contrast and brightness.

    Pixels of one colour still have one colour, and pixels of different colours still differ.
    """
    count = len(images_BHWC)
    chosen_B = generator.random(count) < probability
    order_B3 = np.stack([generator.permutation(3) for _ in range(count)])
    grey_33 = np.full((3, 3), 1 / 3)
    mix_B33 = grey_33 + generator.uniform(0.3, 1.5, (count, 1, 1)) * (np.eye(3)[order_B3] - grey_33)
    contrast_B3, shift_B3 = generator.uniform(0.6, 1.4, (count, 3)), generator.uniform(-40, 40, (count, 3))
    mix_B33[~chosen_B], contrast_B3[~chosen_B], shift_B3[~chosen_B] = np.eye(3), 1, 0
    pixels = images_BHWC.float()
    mix, contrast, shift = (torch.from_numpy(array).to(pixels) for array in (mix_B33, contrast_B3, shift_B3))
    mixed = torch.einsum("bij,bhwj->bhwi", mix, pixels)
    mean = mixed.mean(dim=(1, 2), keepdim=True)
    return ((mixed - mean) * contrast[:, None, None] + mean + shift[:, None, None]).clamp(0, 255)


def _flipped(maps_B: Tensor, flips_B: Tensor) -> Tensor:
    """Return maps (B, H, W, ...) of which those with `flips_B` are mirrored horizontally."""
    shaped = flips_B.view(-1, *[1] * (maps_B.ndim - 1))
    return torch.where(shaped, maps_B.flip(2), maps_B)
