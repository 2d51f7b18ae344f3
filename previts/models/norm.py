"""Batch normalisation over groups of a batch, of images and of clips.

PreViTS section 4.1 trains on 16 GPUs, each of which normalises over its own share of the batch. Groups do the same on
fewer devices, so results do not depend on the number of devices.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class GroupedBatchNorm(_BatchNorm):
    """Batch normalisation that treats each run of `group_size` samples as its own batch while training.

    The running statistics move once a call, by the mean over the groups. Averaging the statistics of as many devices
    gives the same. Parameters, buffers, their names and inference are those of `nn.BatchNorm2d` and `nn.BatchNorm3d`.
    """

    def __init__(
        self, num_features: int, group_size: int | None = None, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.group_size = group_size
        self.whole_momentum = momentum

    def begin_part(self, part: int, parts: int) -> None:
        """Set, for the next calls, how far the running statistics move for one of several parts of a batch.

        After the last part they have moved as far as for the whole batch at once: part i of n moves them by a share of
        (m / n) / (1 - (n - 1 - i) m / n), with momentum m, which the later parts shrink to m / n.
        """
        share = self.whole_momentum / parts
        self.momentum = share / (1 - (parts - 1 - part) * share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (4, 5):
            raise ValueError(f"maps must be BCHW or BCTHW, got {input.shape = }")

    def forward(self, maps: Tensor) -> Tensor:
        """Return the normalised maps, BCHW or BCTHW; while training B must be a multiple of `group_size`."""
        if not self.training or self.group_size is None or self.group_size == len(maps):
            return super().forward(maps)
        self._check_input_dim(maps)
        if len(maps) % self.group_size:
            raise ValueError(f"the batch must be whole groups, got {len(maps) = }, {self.group_size = }")
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # A loop, because its kernel is far faster than operations on a (groups, ...) view. On a CPU, channels last,
        # forward and backward, folding groups into channels takes 2 to 4 times as long. torch.var_mean with the
        # arithmetic written out takes 3 to 5 times as long.
        groups = torch.split(maps, self.group_size)
        # With momentum 1 the "running" statistics of a group are those of the group.
        means = self.running_mean.new_zeros(len(groups), self.num_features)
        variances = torch.zeros_like(means)
        normalised = [
            F.batch_norm(group, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
            for group, mean, variance in zip(groups, means, variances, strict=True)
        ]
        with torch.no_grad():
            self.running_mean.lerp_(means.mean(0), self.momentum)
            self.running_var.lerp_(variances.mean(0), self.momentum)
            self.num_batches_tracked.add_(1)
        return torch.cat(normalised)
