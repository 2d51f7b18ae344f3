"""Momentum contrast with attention supervision: the image model of PreViTS and one step of its objective.

PreViTS sections 3.1 and 3.3, equations 1 and 3-6, on MoCo. It neither reads data nor touches an optimiser.

What a step costs: the query is encoded once and serves the contrastive and the attention term; key and foreground key
share one forward pass of the momentum encoder, without gradients.

Several processes compute what one would: batch normalisation sees `batch_norm_groups` groups whatever the number of
processes, and the keys of a group are those of other samples than its queries (shuffled batch normalisation), because
the loader hands out keys in the order `Pairs.key_order`. Only embeddings and flags are exchanged.

Shape suffixes: B pairs of this process, N pairs of all processes, C channels, D embedding, K queue, H W pixels
or cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from previts import distributed
from previts.errors import InputError
from previts.experiment import Experiment
from previts.gradcam import attention_iou, attention_map, channel_weights, pool_masks
from previts.losses import attention_distance, info_nce, mean_over
from previts.models.heads import build_head
from previts.models.resnet import Encoder, build_encoder


class Pairs(NamedTuple):
    """A batch on the training device. Row b holds the query of pair b and the key of pair `key_order[b]` (global rows).

    Images are (B, C, H, W) and normalised, masks (B, H, W), flags (B,), `key_order` (N,). `*_usable` is False where a
    frame could not be read (the image is then a stand-in that counts for nothing but normalisation); `*_masked` where
    the object's mask is known. A mask that is not known is all True.
    """

    query: Tensor
    query_mask: Tensor
    query_masked: Tensor
    query_usable: Tensor
    key: Tensor
    key_mask: Tensor
    key_masked: Tensor
    key_usable: Tensor
    key_order: Tensor


class Step(NamedTuple):
    """What one forward pass gives.

    `loss` is scaled so that its mean over the processes is the loss of the global batch; so are the `figures`, of
    `FIGURES`. The `keys`, (N, D), go into the queue (`MoCo.enqueue`) once the backward pass is done.
    """

    loss: Tensor
    figures: Tensor
    keys: Tensor


FIGURES = ("loss", "loss_contrastive", "positive_similarity", "loss_attention", "attention_iou")


class MoCo(nn.Module):
    """Query and key encoders, their heads, and the queue of past keys."""

    queue: Tensor
    pointer: Tensor

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.experiment = experiment
        model, objective = experiment.model, experiment.objective
        batch, groups = experiment.optim.batch_size, objective.batch_norm_groups
        if batch % groups:
            raise InputError(f"optim.batch_size = {batch} must be a multiple of objective.batch_norm_groups = {groups}")
        if objective.queue_size < batch:
            raise InputError(
                f"objective.queue_size = {objective.queue_size} must be at least optim.batch_size = {batch}"
            )
        size = batch // groups
        self.encoder_q, self.encoder_k = build_encoder(model.encoder, size), build_encoder(model.encoder, size)
        channels = self.encoder_q.channels
        self.head_q = build_head(model.head, channels, model.embedding_dim)
        self.head_k = build_head(model.head, channels, model.embedding_dim)
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.head_k.load_state_dict(self.head_q.state_dict())
        for parameter in self._key_parameters():
            parameter.requires_grad = False
        queue = torch.randn(objective.queue_size, model.embedding_dim)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @property
    def encoder(self) -> Encoder:
        """The encoder that is kept: the query's."""
        return self.encoder_q

    def _query_parameters(self) -> list[Tensor]:
        return [*self.encoder_q.parameters(), *self.head_q.parameters()]

    def _key_parameters(self) -> list[Tensor]:
        return [*self.encoder_k.parameters(), *self.head_k.parameters()]

    def forward(self, pairs: Pairs) -> Step:
        """Return the loss of a batch (equation 6), after moving the key encoder once towards the query encoder.

        Each term is the mean over the pairs that count: the readable ones, and for attention those with
        both masks known.
        """
        objective = self.experiment.objective
        maps_BCHW = self._maps(self.encoder_q, pairs.query)
        pooled_BC = maps_BCHW.mean((2, 3))
        query_BD = F.normalize(self.head_q(pooled_BC), dim=1)
        with torch.no_grad():
            self.update_keys()
            keys_ND, foregrounds_ND, usable_N, masked_N = self._exchange(pairs)
        rows = slice(distributed.rank() * len(query_BD), (distributed.rank() + 1) * len(query_BD))
        key_BD, usable_B, masked_B = keys_ND[rows], usable_N[rows], masked_N[rows]
        # Sums over this process's pairs, divided by the number of all: times the number of processes, because gradients
        # are averaged over them.
        number, scale = usable_N.sum(), distributed.world_size()
        nce_B = info_nce(query_BD, key_BD, self.queue, objective.temperature)
        contrastive = mean_over(nce_B, usable_B, number) * scale
        similarity = mean_over((query_BD.detach() * key_BD).sum(1), usable_B, number) * scale
        figures = [contrastive, similarity]
        loss = contrastive
        if objective.attention_weight:
            weights_BC = channel_weights(pooled_BC, self.head_q, foregrounds_ND[rows])
            cam_BHW = attention_map(maps_BCHW, weights_BC, objective.cam)
            mask_BHW = pool_masks(pairs.query_mask, cam_BHW.shape[1], cam_BHW.shape[2], objective.mask_pooling)
            attention = mean_over(attention_distance(cam_BHW, mask_BHW), masked_B, masked_N.sum()) * scale
            iou = mean_over(attention_iou(cam_BHW, mask_BHW), masked_B, masked_N.sum()) * scale
            loss = contrastive + objective.attention_weight * attention
            figures += [attention, iou]
        return Step(loss, torch.stack([loss, *figures]).detach(), keys_ND)

    def _maps(self, encoder: Encoder, images_BCHW: Tensor) -> Tensor:
        """Return the last maps as the losses take them; on a GPU the encoder computes in the experiment's precision."""
        reduced = images_BCHW.is_cuda and self.experiment.optim.precision == "bfloat16"
        with torch.autocast("cuda", torch.bfloat16, enabled=reduced):
            maps = encoder.features(images_BCHW.contiguous(memory_format=torch.channels_last))
        return maps.to(self.queue.dtype)

    @torch.no_grad()
    def embed_keys(self, images_BCHW: Tensor) -> Tensor:
        """Return the unit-length embeddings of the momentum encoder, (B, D)."""
        return F.normalize(self.head_k(self._maps(self.encoder_k, images_BCHW).mean((2, 3))), dim=1)

    def _exchange(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode this process's keys and return those of all processes, in the order of the queries.

        Returns:
            Keys and foreground keys (N, D), the latter empty without an attention term; which pairs are usable, and
            which of them have both masks (N,).
        """
        images = [pairs.key]
        if self.experiment.objective.attention_weight:
            # Of a normalised image, so that what is hidden has the mean colour.
            images.append(pairs.key * pairs.key_mask[:, None])
        # One pass for both. Batch normalisation sees them apart: its groups are runs of samples.
        embedded = self.embed_keys(torch.cat(images)).chunk(len(images))
        flags = (pairs.key_usable, pairs.key_masked, pairs.query_usable, pairs.query_masked)
        sent = torch.cat([*embedded, *(flag[:, None].to(embedded[0]) for flag in flags)], dim=1)
        gathered = distributed.gather(sent)
        width = embedded[0].shape[1] * len(images)
        keys = torch.empty_like(gathered[:, : width + 2])
        keys[pairs.key_order] = gathered[:, : width + 2]
        usable_N = (keys[:, width] > 0) & (gathered[:, width + 2] > 0)
        masked_N = usable_N & (keys[:, width + 1] > 0) & (gathered[:, width + 3] > 0)
        dim = embedded[0].shape[1]
        return keys[:, :dim], keys[:, dim:width], usable_N, masked_N

    @torch.no_grad()
    def update_keys(self) -> None:
        """Move the weights of the key encoder towards the query encoder's; statistics and counters stay its own."""
        share = 1 - self.experiment.objective.key_momentum
        torch._foreach_lerp_(self._key_parameters(), self._query_parameters(), share)

    @torch.no_grad()
    def enqueue(self, keys_ND: Tensor) -> None:
        """Replace the oldest keys of the ring by new ones; call it after the backward pass, which needs them."""
        places = (self.pointer + torch.arange(len(keys_ND), device=keys_ND.device)) % len(self.queue)
        self.queue.index_copy_(0, places, keys_ND.to(self.queue.dtype))
        self.pointer.add_(len(keys_ND)).remainder_(len(self.queue))

    def attend(self, query_BCHW: Tensor, key_BCHW: Tensor, key_mask_BHW: Tensor) -> Tensor:
        """Return where in each query the likeness to the key's foreground lies, (B, H/32, W/32), not negative.

        Equations 3 and 4 as in training; images normalised. Put the model into eval mode first.
        """
        maps_BCHW = self._maps(self.encoder_q, query_BCHW)
        foreground_BD = self.embed_keys(key_BCHW * key_mask_BHW[:, None])
        weights_BC = channel_weights(maps_BCHW.mean((2, 3)), self.head_q, foreground_BD)
        return attention_map(maps_BCHW, weights_BC, self.experiment.objective.cam)

    def average_statistics(self) -> None:
        """Give all processes the mean of their batch-norm statistics: what one process over all groups would have."""
        distributed.average_([value for name, value in self.named_buffers() if "running_" in name])
