"""Deep-USPS: a saliency network learned from handcrafted maps alone.

PreViTS section 3.2; Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision"
(2019). For each handcrafted prior a network is trained on the prior's maps, in rounds; the moving average of its
predictions over the epochs, refined by a CRF, is the next round's target. Then one network learns from all of them.
Arrays in, weights out; where they are kept between rounds is the caller's affair.

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

from previts.config.experiment import FitConfig
from previts.processes import workers
from previts.processes.progress import progress
from previts.saliency import crf
from previts.saliency.network import SaliencyNetwork, encode, load_weights, memory_format

Levels = npt.NDArray[np.uint8]  # maps in [0, 1] as 0 to 255
# Numbers of images (B) and what was said of them (B, S, S) to refined maps (B, S, S).
Refine = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]]

# Which pixels of a handcrafted map are taken as salient in the first round; Deep-USPS found them on its pictures.
FIRST_THRESHOLDS = {"rbd": 0.25, "mc": 0.31, "dsr": 0.23, "hs": 0.36}
THRESHOLD = 0.5  # of averaged predictions
POLY_POWER = 0.9
EPSILON = 1e-5


def f_measure_loss(saliency_BHW: Tensor, target_BHW: Tensor, threshold: float, beta2: float) -> Tensor:
    """Return 1 - F of a soft prediction against a thresholded target, the mean over the images.

    Pixels on which the prediction is already on the target's side of the threshold by more than the target itself count
    as decided, and pass no gradient.

    Args:
        saliency_BHW: Prediction in [0, 1].
        target_BHW: Map in [0, 1] that says what is salient: more than the threshold.
        threshold: Where the target is cut.
        beta2: Weight of precision against recall; above 1 recall counts more.

    Raises:
        ValueError: If the shapes differ.
    """
    if saliency_BHW.shape != target_BHW.shape:
        raise ValueError(f"shapes must agree, got {saliency_BHW.shape = }, {target_BHW.shape = }")
    salient_BHW = target_BHW > threshold
    saliency_BHW = saliency_BHW.masked_fill(salient_BHW & (saliency_BHW > target_BHW), 1.0)
    saliency_BHW = saliency_BHW.masked_fill((target_BHW < threshold) & (saliency_BHW < target_BHW), 0.0)
    truth_BHW = salient_BHW.to(saliency_BHW.dtype)
    hits_B, said_B, true_B = (x.sum(dim=(1, 2)) for x in (saliency_BHW * truth_BHW, saliency_BHW, truth_BHW))
    precision_B, recall_B = hits_B / (said_B + EPSILON), hits_B / (true_B + EPSILON)
    f_B = (1 + beta2) * precision_B * recall_B / (beta2 * precision_B + recall_B + EPSILON)
    return (1 - f_B).mean()


class History:
    """The moving average of the predictions for every image: m <- momentum m + (1 - momentum) p, once an epoch."""

    # Paper: the average starts at 0 and stays a little low, by momentum ^ epochs (1e-4 after 25). Here it is divided by
    # what that leaves out, so that few epochs give no other threshold than many.

    def __init__(self, count: int, side: int, momentum: float, refine: Refine | None = None) -> None:
        self.sum_NSS = np.zeros((count, side, side), dtype=np.float16)
        self.momentum = momentum
        self.refine = refine
        self.epochs_N = np.zeros(count, dtype=np.int64)

    def add(self, numbers: npt.NDArray[np.int64], saliency_BSS: npt.NDArray[np.float32]) -> None:
        """Take in the predictions for some images, refined before if a function for that was given."""
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
    """Return an image or map of any shape as a square."""
    return resize(image, side, side)


def resize(image: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Return an image or map in another shape, by the means of areas where it shrinks."""
    shrinks = image.shape[0] >= rows and image.shape[1] >= columns
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def build_network(config: FitConfig, weights: Mapping[str, Tensor] | None) -> SaliencyNetwork:
    """Return the network that every training begins with: from the seed, or from given weights as far as they fit.

    Raises:
        ValueError: If no tensor of the weights fits.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = SaliencyNetwork(config.network, config.width, config.inputs)
    if weights is not None:
        load_weights(network, dict(weights))
    return network


class Training:
    """One training of a network: Adam, with a rate that falls as a polynomial over the epochs.

    # Paper: the last, smaller batch of an epoch is trained on too, so that every image has a history.

    Args:
        network: With its initial weights; trained in place.
        config: Settings.
        device: Where to train.
        epochs: Planned number.
        lr: Rate of the first epoch.
        beta2: Of the loss.
        threshold: Of the targets.
        salt: Tells this training's random numbers from those of another.
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
        """Return what `restore` needs to go on after the last epoch."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.epoch = int(state["epoch"])
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])

    def run_epoch(
        self, images_NSS3: npt.NDArray[np.uint8], target_PNSS: Sequence[Levels], history: History | None = None
    ) -> float:
        """Train on every image once and return the mean loss; a history takes in what the network said while learning.

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
    """Return the training on the maps of one prior; in round 0 these are the handcrafted ones."""
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
    """Train a network on the maps of one prior and return the average of what it said of each image while it learned.

    Args:
        training: Of `round_training`, not yet begun.
        images_NSS3: The frames, squashed.
        target_NSS: What to learn from.
        what: Name of the round, for the progress bar.
        run: Processes for the CRF.
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
    """Yield runs of `size` numbers; a single one left over joins the last, for batch normalisation needs two."""
    starts = list(range(0, len(order_N), size))
    if len(starts) > 1 and len(order_N) - starts[-1] == 1:
        starts.pop()
    for place, start in enumerate(starts):
        yield order_N[start : starts[place + 1] if place + 1 < len(starts) else len(order_N)]


def recolour(images_BHWC: Tensor, probability: float, generator: np.random.Generator) -> Tensor:
    """Return images with other colours, float in [0, 255]: channels exchanged, saturation, contrast and brightness.

    Which pixels differ from which stays as it was.
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
    """Return maps (B, H, W, ...) mirrored where `flips` says so."""
    shaped = flips_B.view(-1, *[1] * (maps_B.ndim - 1))
    return torch.where(shaped, maps_B.flip(2), maps_B)
