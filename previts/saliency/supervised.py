"""Masks of a detector that was trained with labels (torchvision's Mask R-CNN), in place of saliency.

PreViTS table 6d compares tubes from supervised masks. The user gives the weights: this file downloads none and trains
none. Classes are ignored: the tube follows the largest object.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn

from previts.errors import InputError
from previts.media.masks import Mask
from previts.saliency.weights import Weights
from previts.storage import files, folders, tensors

DETECTOR = "detector.pt"  # the state dict
MASK_THRESHOLD = 0.5  # of a pixel's probability, as in the evaluation of Mask R-CNN
SIDE, LONGEST = 800, 1333  # pixels; torchvision's short side of an image, and the limit of the long side

_CLASSES = "roi_heads.box_predictor.cls_score.weight"  # one row per class, including the background
_COUNTS = "num_batches_tracked"


def write_detector(weights: Weights, target_uri: str) -> None:
    """Write a detector to a folder, after a check that its tensors are those of a Mask R-CNN.

    Raises:
        InputError: If tensors of torchvision's maskrcnn_resnet50_fpn are missing or have another shape, or if there are
            other tensors.
    """
    try:
        build_detector(weights.tensors, min_score=0.0)
    except ValueError as error:
        raise InputError(
            f"fit.weights is not a state dict of torchvision's maskrcnn_resnet50_fpn: {error}; "
            "give one, with any number of classes"
        ) from None
    files.write_bytes(files.join(target_uri, DETECTOR), tensors.to_bytes(weights.tensors))


def load_detector(model_uri: str, min_score: float, side: int) -> Callable[[npt.NDArray[np.uint8]], list[list[Mask]]]:
    """Return a function from images (T, H, W, 3) to the masks (H, W) of the objects in each, highest score first.

    Args:
        model_uri: Folder of `write_detector`.
        min_score: Least score of an object, in [0, 1).
        side: Pixels; the short side that an image is scaled to.

    Raises:
        InputError: If the detector is missing or damaged.
    """
    try:
        detector = build_detector(tensors.parse(folders.read_file(model_uri, DETECTOR)), min_score, side)
    except (tensors.DamagedError, FileNotFoundError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the detector at {model_uri} cannot be read ({tensors.reason(error)}); delete the folder and run "
            "`previts fit_saliency` again"
        ) from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = detector.to(device)

    @torch.inference_mode()
    def find(images_THWC: npt.NDArray[np.uint8]) -> list[list[Mask]]:
        found = []
        for image in images_THWC:  # one at a time: an image can have a hundred masks of its size in memory
            pixels_CHW = torch.tensor(image, device=device).permute(2, 0, 1) / 255
            masks_N1HW = detector([pixels_CHW])[0]["masks"]
            masks_NHW = (masks_N1HW[:, 0] > MASK_THRESHOLD).cpu().numpy()
            found.append([mask for mask in masks_NHW if mask.any()])
        return found

    return find


def build_detector(state: dict[str, torch.Tensor], min_score: float, side: int = SIDE) -> MaskRCNN:
    """Return the detector of a state dict in eval mode, with the number of classes of its box predictor.

    An image is scaled so that its short side has `side` pixels. The long side is limited in torchvision's proportion.

    Raises:
        ValueError: If the tensors do not fit.
    """
    if _CLASSES not in state or not state[_CLASSES].ndim:
        raise ValueError(f"no {_CLASSES!r} among {len(state)} tensors (such as {sorted(state)[:3]})")
    detector = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=len(state[_CLASSES]),
        min_size=side,
        max_size=round(side * LONGEST / SIDE),
        # The detector keeps scores above its threshold; `min_score` itself must be kept too.
        box_score_thresh=float(np.nextafter(np.float32(min_score), np.float32(-1))),
    )
    try:
        missing, unknown = detector.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        raise ValueError(" ".join(str(error).split())[:500]) from None
    missing = [name for name in missing if not name.endswith(_COUNTS)]
    if missing or unknown:
        raise ValueError(
            f"{len(missing)} tensors are missing (such as {missing[:3]}), "
            f"{len(unknown)} are unknown (such as {unknown[:3]})"
        )
    if not any(name.endswith(_COUNTS) for name in state):
        # Batch norm was frozen, as in torchvision's published weights. torchvision runs these with an epsilon of 0.
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
    return detector.eval()
