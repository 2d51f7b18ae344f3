"""Predictor of saliency maps by a trained network, for frames of any shape.

PreViTS section 3.2, the test phase of Deep-USPS. Runs batches on a GPU if there is one. Reads a network that `fit.py`
has written, and trains none.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch

from previts.saliency import crf
from previts.saliency.fit import load_network
from previts.saliency.network import STRIDE, encode, memory_format
from previts.saliency.usps import resize

BATCH = 8  # frames; larger batches are not faster on one core, and processes share a GPU


def working_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the shape to which frames are resized for the network.

    It has the area of the squares that the network was trained on and the frame's aspect ratio. Both sides are
    multiples of 8.

    # Paper: Deep-USPS pads images of about 400 x 300 to a multiple of 8. Here frames are resized, so that objects have
    the scale of the training images.
    """
    scale = size / (height * width) ** 0.5
    rows, columns = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width))
    return rows, columns


def load_network_predictor(model_uri: str, use_crf: bool) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Return a function from images (T, H, W, 3) to saliency (T, H, W) that runs a trained network.

    Args:
        model_uri: Folder of `fit_saliency`.
        use_crf: Whether the CRF refines each map, at the network's working shape.

    Raises:
        InputError: If the model cannot be read.
    """
    network, size = load_network(model_uri)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = memory_format(device)
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def predict(images_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        height, width = images_THWC.shape[1:3]
        rows, columns = working_shape(height, width, size)
        maps_THW = np.empty(images_THWC.shape[:3], dtype=np.float32)
        for start in range(0, len(images_THWC), BATCH):
            small = np.stack([resize(image, rows, columns) for image in images_THWC[start : start + BATCH]])
            pixels = encode(torch.from_numpy(small).to(device), network.inputs).contiguous(memory_format=layout)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                found = network(pixels).cpu().numpy()
            for place, saliency in enumerate(found):
                if use_crf:
                    saliency = crf.refine(saliency, small[place], size / crf.SIDE)
                maps_THW[start + place] = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
        return maps_THW

    return predict
