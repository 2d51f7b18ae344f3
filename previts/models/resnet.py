"""ResNet encoders of images, with torchvision's layers and names.

PreViTS section 4.1: ResNet-50; ResNet-18 for small runs.
"""

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from previts.models.norm import GroupedBatchNorm


class ResNetEncoder(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet without its classifier; its `state_dict` loads into torchvision's model (all but `fc`)."""

    def __init__(self, kind: Literal["resnet18", "resnet50"], group_size: int | None) -> None:
        block, layers = (BasicBlock, [2, 2, 2, 2]) if kind == "resnet18" else (Bottleneck, [3, 4, 6, 3])
        super().__init__(block, layers, norm_layer=partial(GroupedBatchNorm, group_size=group_size))
        # torchvision initialises the weights of nn.BatchNorm2d only; _BatchNorm sets its own to 1 and 0.
        self.channels = int(self.fc.in_features)  # type: ignore[has-type]
        self.fc = nn.Identity()

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return the maps of the last convolution, (B, C, H/32, W/32): the paper's `conv5`."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images_BCHW))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        assert isinstance(maps, Tensor)
        return maps
