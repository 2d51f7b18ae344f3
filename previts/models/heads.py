"""Projection heads, and the gradient of an embedding direction with respect to the channels.

MoCo's linear head (v1) and two-layer head (v2). Grad-CAM needs this gradient (PreViTS equation 3). It is written as an
expression, so it can be differentiated again without a second pass through the graph.

Shape suffixes: B clips, C channels, D embedding, H hidden units.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Module):
    """One affine layer from channels to embedding."""

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(channels, embedding_dim)

    def forward(self, pooled_BC: Tensor) -> Tensor:
        """Return the embedding, not normalised, (B, D)."""
        embedding: Tensor = self.out(pooled_BC)
        return embedding

    def pull_back(self, pooled_BC: Tensor, direction_BD: Tensor) -> Tensor:
        """Return the gradient of <head(pooled), direction> with respect to `pooled`, (B, C)."""
        return direction_BD @ self.out.weight


class MlpHead(nn.Module):
    """Affine, ReLU, affine; the hidden layer is as wide as the channels."""

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, embedding_dim)

    def forward(self, pooled_BC: Tensor) -> Tensor:
        """Return the embedding, not normalised, (B, D)."""
        embedding: Tensor = self.out(F.relu(self.hidden(pooled_BC)))
        return embedding

    def pull_back(self, pooled_BC: Tensor, direction_BD: Tensor) -> Tensor:
        """Return the gradient of <head(pooled), direction> with respect to `pooled`, (B, C)."""
        with torch.no_grad():  # the derivative of ReLU is piecewise constant
            open_BH = (self.hidden(pooled_BC) > 0).to(pooled_BC.dtype)
        pulled_BC: Tensor = ((direction_BD @ self.out.weight) * open_BH) @ self.hidden.weight
        return pulled_BC


Head = LinearHead | MlpHead


def build_head(kind: Literal["linear", "mlp"], channels: int, embedding_dim: int) -> Head:
    """Return a new head with random weights."""
    match kind:
        case "linear":
            return LinearHead(channels, embedding_dim)
        case "mlp":
            return MlpHead(channels, embedding_dim)
