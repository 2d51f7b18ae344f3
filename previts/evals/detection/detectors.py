"""Detectors that start from an encoder: Faster R-CNN on layer3 (C4) and Mask R-CNN on a feature pyramid (FPN).

PreViTS section 4.2, which follows MoCo and VirTex; both use detectron2. These are torchvision's detectors; the parts in
which the two libraries differ are replaced. Encoders are copied and never change.

Paper: three differences remain. Boxes are regressed by a smooth L1 loss with its bend at 1/9 (detectron2: plain L1).
Fully connected and mask layers have torchvision's initial weights. Images of any shape share a batch.

Shape suffixes: B images, R regions, C channels, H W pixels or cells.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from previts.config.evaluation import DetectionConfig
from previts.models.pixels import MEAN, STD
from previts.models.resnet import ResNetEncoder
from previts.processes import distributed

# not stated: all values below are detectron2's.
ANCHOR_SIDES, ANCHOR_RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
# Proposals in training before and after suppression, and in the test before it; multiples of those kept in the test.
C4_PROPOSALS, FPN_PROPOSALS = (12, 2, 6), (2, 1, 1)
DETECTIONS = 100  # at most, per image
PYRAMID_CHANNELS = 256
BOX_CELLS, MASK_CELLS = 7, 14  # height and width of a region's map in the FPN
WHOLE_SIDE, WHOLE_LEVEL = 224, 4  # a region of this size uses the map of stride 2 ** 4
CLASS_DEVIATION, BOX_DEVIATION = 0.01, 0.001


def c4(encoder: ResNetEncoder, classes: int, settings: DetectionConfig) -> nn.Module:
    """Return Faster R-CNN on the maps of layer3 (stride 16), whose box head is layer4 with one more normalisation.

    Args:
        encoder: Source of the weights and statistics, which are copied.
        classes: Number of classes, without the background.
        settings: Uses cells, proposals, regions.
    """
    body = plain_resnet(encoder)
    parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    trunk = nn.Sequential(OrderedDict((name, getattr(body, name)) for name in parts))
    trunk.out_channels = encoder.channels // 2  # type: ignore[assignment]  # torchvision reads it there
    detector = FasterRCNN(
        trunk,
        rpn_anchor_generator=AnchorGenerator((ANCHOR_SIDES,), (ANCHOR_RATIOS,)),
        box_roi_pool=AlignedPool((16,), settings.cells),
        box_head=Layer4Head(body.layer4, encoder.channels),
        box_predictor=FastRCNNPredictor(encoder.channels, classes + 1),
        **_numbers(settings, C4_PROPOSALS),
    )
    return _finished(detector)


def fpn(encoder: ResNetEncoder, classes: int, settings: DetectionConfig) -> nn.Module:
    """Return Mask R-CNN on a feature pyramid with normalised layers; arguments as for `c4`."""
    layers = {f"layer{number + 1}": str(number) for number in range(4)}
    channels = [encoder.channels // 2**number for number in (3, 2, 1, 0)]
    pyramid = BackboneWithFPN(
        plain_resnet(encoder), layers, channels, PYRAMID_CHANNELS, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
    )
    strides = (4, 8, 16, 32)
    detector = MaskRCNN(
        pyramid,
        classes + 1,
        rpn_anchor_generator=AnchorGenerator(
            tuple((side,) for side in ANCHOR_SIDES), (ANCHOR_RATIOS,) * len(ANCHOR_SIDES)
        ),
        box_roi_pool=AlignedPool(strides, BOX_CELLS),
        mask_roi_pool=AlignedPool(strides, MASK_CELLS),
        **_numbers(settings, FPN_PROPOSALS),
    )
    return _finished(detector)


def _numbers(settings: DetectionConfig, ratios: tuple[int, int, int]) -> dict[str, int]:
    before_train, after_train, before_test = (ratio * settings.proposals for ratio in ratios)
    return {
        "rpn_pre_nms_top_n_train": before_train,
        "rpn_post_nms_top_n_train": after_train,
        "rpn_pre_nms_top_n_test": before_test,
        "rpn_post_nms_top_n_test": settings.proposals,
        "box_batch_size_per_image": settings.regions,
        "box_detections_per_img": min(DETECTIONS, settings.proposals),
    }


def _finished(detector: Any) -> nn.Module:
    predictor = detector.roi_heads.box_predictor
    for layer, deviation in ((predictor.cls_score, CLASS_DEVIATION), (predictor.bbox_pred, BOX_DEVIATION)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    detector.transform = Prepared(1, 1, list(MEAN), list(STD))
    finished: nn.Module = detector.to(memory_format=torch.channels_last)
    return finished


def plain_resnet(encoder: ResNetEncoder) -> Any:
    """Return torchvision's ResNet with the weights and the statistics of an encoder.

    Its batch normalisation uses the whole batch.
    """
    bottleneck = encoder.channels == 2048
    body = torchvision.models.resnet50() if bottleneck else torchvision.models.resnet18()
    body.fc = nn.Identity()
    body.load_state_dict(encoder.state_dict())
    return body


class Prepared(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Normalises and pads images without resizing; leaves detections in the pixels of the input."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Return both unchanged."""
        return image, target

    def postprocess(self, result: list[dict[str, Tensor]], *_: Any) -> list[dict[str, Tensor]]:
        """Return the detections unchanged; masks stay in the boxes, R1hw."""
        return result


class AlignedPool(MultiScaleRoIAlign):  # type: ignore[misc]
    """The map of each region, R C cells cells, with samples in proportion to its size and without a half-pixel shift.

    torchvision's own pooling takes four samples per cell and has the shift.
    """

    def __init__(self, strides: tuple[int, ...], cells: int) -> None:
        super().__init__([str(number) for number in range(len(strides))], cells, sampling_ratio=0)
        self.strides = strides

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Return the maps of all regions, image after image.

        Args:
            x: Maps BCHW by name, the finest first.
            boxes: Regions of each image, xyxy in pixels.
            image_shapes: Unused, because the strides are known.
        """
        maps = [x[name] for name in self.featmap_names]
        images = [box.new_full((len(box), 1), number) for number, box in enumerate(boxes)]
        regions_R5 = torch.cat([torch.cat(images), torch.cat(boxes)], dim=1)
        if len(maps) == 1:
            return self._align(maps[0], regions_R5, self.strides[0])
        side_R = ((regions_R5[:, 3] - regions_R5[:, 1]) * (regions_R5[:, 4] - regions_R5[:, 2])).sqrt()
        level_R = torch.floor(WHOLE_LEVEL + torch.log2(side_R / WHOLE_SIDE + 1e-8)).long()
        place_R = (level_R - int(math.log2(self.strides[0]))).clamp(0, len(maps) - 1)
        pooled = maps[0].new_zeros(len(regions_R5), maps[0].shape[1], *self.output_size)
        for place, (features, stride) in enumerate(zip(maps, self.strides, strict=True)):
            chosen = torch.where(place_R == place)[0]
            pooled = pooled.index_put((chosen,), self._align(features, regions_R5[chosen], stride))
        return pooled

    def _align(self, features_BCHW: Tensor, regions_R5: Tensor, stride: int) -> Tensor:
        found: Tensor = roi_align(features_BCHW, regions_R5, self.output_size, 1 / stride, 0, aligned=True)
        return found


class Layer4Head(nn.Module):
    """An encoder's layer4 on the maps of regions, one more normalisation (MoCo), and the mean: R C."""

    def __init__(self, layer4: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer4 = layer4
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, regions_RCHW: Tensor) -> Tensor:
        """Return the features of each region."""
        maps: Tensor = self.norm(self.layer4(regions_RCHW.contiguous(memory_format=torch.channels_last)))
        return maps.mean(dim=(2, 3))


def placed(detector: nn.Module, device: torch.device) -> nn.Module:
    """Return a detector on its device; on GPUs its normalisation uses the batch of all processes.

    torch has no such layer for CPUs, where each process normalises over its own share.
    """
    if distributed.world_size() > 1 and device.type == "cuda":
        detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
    return detector.to(device)


def parameter_groups(detector: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return the parameter groups of a detector for an optimiser, without decay of normalisation (detectron2)."""
    norms = {id(parameter) for norm in normalisations(detector) for parameter in norm.parameters()}
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in detector.parameters():
        groups[id(parameter) in norms].append(parameter)
    return [{"params": groups[0], "weight_decay": decay}, {"params": groups[1], "weight_decay": 0.0}]


def normalisations(detector: nn.Module) -> Iterator[_BatchNorm]:
    """Yield the layers of batch normalisation."""
    return (module for module in detector.modules() if isinstance(module, _BatchNorm))


def forget_statistics(detector: nn.Module) -> None:
    """Reset the statistics of each normalisation; from now on they are the mean over all batches."""
    for norm in normalisations(detector):
        norm.reset_running_stats()
        norm.momentum = None
