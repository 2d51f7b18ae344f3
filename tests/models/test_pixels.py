import torch
from torchvision.transforms.v2 import functional as oracle

from previts.models import pixels


def test_normalisation_is_that_of_torchvision():
    torch.manual_seed(0)
    clips = torch.rand(2, 4, 3, 6, 5)
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, as published with torchvision
    torch.testing.assert_close(pixels.normalise(clips), oracle.normalize(clips, mean, deviation))
    torch.testing.assert_close(pixels.normalise(clips[0, 0]), oracle.normalize(clips[0, 0], mean, deviation))
