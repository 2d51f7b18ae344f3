"""Momentum contrast with attention supervision: the image and the video model of PreViTS, and the loss of a step.

PreViTS sections 3.1 and 3.3, equations 1 to 6. The image model is based on MoCo, the video model on RSPNet, which adds
a second head for speed. An image is a clip of one frame. Neither data loading nor the optimiser is here.

Cost of a step: the query is encoded once for all terms. The key, its foreground and the clip of the other speed each
take a forward pass of the momentum encoder, without gradients.

Several processes, or several parts of a batch one after another, compute the same as one process:

- Batch normalisation uses `batch_norm_groups` groups for any number of processes.
- The keys of a group belong to other pairs than its queries (shuffled batch normalisation), because the loader arranges
  keys in the order `Pairs.key_order`.
- Only embeddings and flags are exchanged.

Shape suffixes: B pairs of this process, N pairs of all processes, C channels, D embedding, E all embeddings of a key, K
queue, T H W frames and pixels, or cells.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from previts.config.experiment import Experiment, ObjectiveConfig
from previts.errors import InputError
from previts.models.encoders import Encoder, build_encoder, last_maps
from previts.models.gradcam import attention_iou, attention_map, channel_weights, pool_masks
from previts.models.heads import build_head
from previts.models.losses import attention_distance, info_nce, mean_over, relative_speed
from previts.models.norm import GroupedBatchNorm
from previts.processes import distributed


class Clips(NamedTuple):
    """One side of a batch on the training device.

    `clips` are (B, C, T, H, W) and normalised, `mask` is (B, T, H, W), flags are (B,). `usable` is False if a clip
    could not be read; a placeholder then takes part in normalisation only. `masked` is True if the object's mask is
    known. A mask that is not known is all True.
    """

    clips: Tensor
    mask: Tensor
    masked: Tensor
    usable: Tensor


class Pairs(NamedTuple):
    """A batch. Row b contains the query of pair b, and the key and the other clip of pair `key_order[b]` (global rows).

    `other` is the clip of the other speed, if there is a speed loss; `key_order` is (N,).
    """

    query: Clips
    key: Clips
    other: Clips | None
    key_order: Tensor


class Keys(NamedTuple):
    """The embeddings of the keys of all processes by the momentum encoder, in the order of the queries.

    Embeddings are (N, D) and of unit length, or (N, 0) if the objective does not use them; `speed_*` come from the head
    for speed. `usable` (N,) marks the pairs that count, and `masked` (N,) those of them with both masks.
    """

    key: Tensor
    foreground: Tensor
    other: Tensor
    speed_key: Tensor
    speed_other: Tensor
    usable: Tensor
    masked: Tensor


class Step(NamedTuple):
    """The result of one part of a batch.

    The loss of the global batch is the sum of `loss` over the parts of a process, averaged over the processes. The same
    holds for the `metrics`, named by `metric_names`. `cam` and `mask` are the attention and the pooled mask of each
    query of the part, (B, T, H, W), without gradients, and empty if there is no attention term.
    """

    loss: Tensor
    metrics: Tensor
    cam: Tensor
    mask: Tensor


def metric_names(objective: ObjectiveConfig) -> tuple[str, ...]:
    """Return the names of the metrics of a step, the loss first."""
    names = ["loss", "loss_contrastive", "positive_similarity", "queue_similarity"]
    if objective.attention_weight:
        names += ["loss_attention", "attention_iou", "masked_share"]
    if objective.speed_weight:
        names += ["loss_speed", "speed_accuracy"]
    return tuple(names)


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
        self.group_size = batch // groups
        self.as_on_gpu = False  # whether to use the precision of a GPU also on a CPU; for a dry run
        self.encoder_q = build_encoder(model.encoder, self.group_size, model.width)
        self.encoder_k = build_encoder(model.encoder, self.group_size, model.width)
        if model.bn_momentum:
            for module in self.modules():
                if isinstance(module, GroupedBatchNorm):
                    module.whole_momentum = module.momentum = model.bn_momentum
        channels = self.encoder_q.channels
        self.head_q = build_head(model.head, channels, model.embedding_dim)
        self.head_k = build_head(model.head, channels, model.embedding_dim)
        if objective.speed_weight:
            self.speed_head_q = build_head(model.head, channels, model.embedding_dim)
            self.speed_head_k = build_head(model.head, channels, model.embedding_dim)
        for own, other in self._key_query_modules():
            own.load_state_dict(other.state_dict())
            own.requires_grad_(False)
        queue = torch.randn(objective.queue_size, model.embedding_dim)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @property
    def encoder(self) -> Encoder:
        """The encoder that is the result of pretraining: that of the query."""
        return self.encoder_q

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Load the weights of one encoder into both; the heads do not change."""
        self.encoder_q.load_state_dict(weights)
        self.encoder_k.load_state_dict(weights)

    def compile_encoders(self) -> None:
        """Compile each encoder with torch.compile; results differ by rounding only."""
        for encoder in (self.encoder_q, self.encoder_k):
            encoder.features = torch.compile(encoder.features)  # type: ignore[assignment,method-assign]

    def _key_query_modules(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield each module of the momentum encoder with the query module that it follows."""
        yield self.encoder_k, self.encoder_q
        yield self.head_k, self.head_q
        if self.experiment.objective.speed_weight:
            yield self.speed_head_k, self.speed_head_q

    def forward(self, query: Clips, keys: Keys, first: int = 0) -> Step:
        """Return the loss of a part of a batch (equation 6), given `encode_keys` of the whole batch.

        Each term is the mean over the pairs that count: the readable ones, and for attention those with both masks
        known.

        Args:
            query: Whole groups of batch normalisation.
            keys: Of all processes.
            first: Row of this process's batch where the part starts.
        """
        objective = self.experiment.objective
        maps_BCTHW = self._maps(self.encoder_q, query.clips)
        pooled_BC = maps_BCTHW.flatten(2).mean(2)
        query_BD = F.normalize(self.head_q(pooled_BC), dim=1)
        first += distributed.rank() * (len(keys.key) // distributed.world_size())
        mine = Keys(*(value[first : first + len(query_BD)] for value in keys))
        # Sums over the part's pairs, divided by the number of all pairs. The factor is the number of processes, because
        # gradients are averaged over the processes.
        scale = distributed.world_size()

        def usable(values_B: Tensor) -> Tensor:
            return mean_over(values_B, mine.usable, keys.usable.sum()) * scale

        nce_B = info_nce(query_BD, mine.key, self.queue, objective.temperature)
        if objective.positives == "key+other":
            nce_B = nce_B + info_nce(query_BD, mine.other, self.queue, objective.temperature)
        loss = contrastive = usable(nce_B)
        still_BD = query_BD.detach()
        metrics = [contrastive, usable((still_BD * mine.key).sum(1)), usable(still_BD @ self.queue.mean(0))]
        cam_BTHW = mask_BTHW = maps_BCTHW.new_empty(0)
        if objective.attention_weight:
            weights_BC = channel_weights(pooled_BC, self.head_q, mine.foreground)
            cam_BTHW = attention_map(maps_BCTHW, weights_BC, objective.cam)
            mask_BTHW = pool_masks(query.mask, cam_BTHW.shape[1:], objective.mask_pooling)
            values = attention_distance(cam_BTHW, mask_BTHW), attention_iou(cam_BTHW, mask_BTHW)
            attention, iou = (mean_over(value, mine.masked, keys.masked.sum()) * scale for value in values)
            loss = loss + objective.attention_weight * attention
            metrics += [attention, iou, mine.masked.sum() * scale / len(keys.masked)]
        if objective.speed_weight:
            motion_BD = F.normalize(self.speed_head_q(pooled_BC), dim=1)
            speed = usable(relative_speed(motion_BD, mine.speed_key, mine.speed_other, objective.speed_margin))
            right_B = (motion_BD * mine.speed_key).sum(1) > (motion_BD * mine.speed_other).sum(1)
            loss = loss + objective.speed_weight * speed
            metrics += [speed, usable(right_B.to(speed.dtype))]
        return Step(loss, torch.stack([loss, *metrics]).detach(), cam_BTHW.detach(), mask_BTHW)

    def _maps(self, encoder: Encoder, clips_BCTHW: Tensor) -> Tensor:
        """Return the last maps in the precision of the losses; on a GPU the encoder uses that of the experiment."""
        reduced = self.experiment.optim.precision == "bfloat16" and (clips_BCTHW.is_cuda or self.as_on_gpu)
        with torch.autocast("cuda" if clips_BCTHW.is_cuda else "cpu", torch.bfloat16, enabled=reduced):
            maps = last_maps(encoder, clips_BCTHW)
        return maps.to(self.queue.dtype)

    @torch.no_grad()
    def encode_keys(self, pairs: Pairs, parts: int = 1) -> Keys:
        """Update the key encoder once from the query encoder, and return the keys of all processes.

        Args:
            pairs: The batch of this process.
            parts: Number of parts that are encoded one after another, each of whole groups of batch normalisation.
        """
        objective, dim = self.experiment.objective, self.experiment.model.embedding_dim
        self._update_key_encoder()
        embedded = []
        for number, rows in enumerate(self.rows(len(pairs.key.usable), parts)):
            embedded.append(self._embed_part(pairs, rows, number, parts))
        usable_B = pairs.key.usable if pairs.other is None else pairs.key.usable & pairs.other.usable
        flags = (usable_B, pairs.key.masked, pairs.query.usable, pairs.query.masked)
        embedded_BE = torch.cat(embedded)
        sent = torch.cat([embedded_BE, *(flag[:, None].to(embedded_BE) for flag in flags)], dim=1)
        gathered = distributed.gather(sent)
        # Embeddings and the first two flags are in the order of the keys, the last two flags in that of the queries.
        ordered = torch.empty_like(gathered)
        ordered[pairs.key_order] = gathered
        usable_N = (ordered[:, -4] > 0) & (gathered[:, -2] > 0)
        masked_N = usable_N & (ordered[:, -3] > 0) & (gathered[:, -1] > 0)
        made = iter(ordered[:, : embedded_BE.shape[1]].chunk(embedded_BE.shape[1] // dim, dim=1))
        none = ordered[:, :0]
        return Keys(
            key=next(made),
            foreground=next(made) if objective.attention_weight else none,
            other=next(made) if objective.speed_weight else none,
            speed_key=next(made) if objective.speed_weight else none,
            speed_other=next(made) if objective.speed_weight else none,
            usable=usable_N,
            masked=masked_N,
        )

    def _embed_part(self, pairs: Pairs, rows: slice, part: int, parts: int) -> Tensor:
        """Return all embeddings of some keys, concatenated in the order of the fields of `Keys`: (B, E)."""
        attentive = bool(self.experiment.objective.attention_weight)
        passes = 1 + attentive + (pairs.other is not None)

        def clips() -> Iterator[Tensor]:
            yield pairs.key.clips[rows]
            if attentive:
                # The clip is normalised, so hidden pixels have the mean colour.
                yield pairs.key.clips[rows] * pairs.key.mask[rows, None]
            if pairs.other is not None:
                yield pairs.other.clips[rows]

        pooled = []
        # One after another: a single pass needs several times the memory for maps, and is not faster.
        for number, clips_BCTHW in enumerate(clips()):
            self.begin_part(self.encoder_k, part * passes + number, parts * passes)
            pooled.append(self._maps(self.encoder_k, clips_BCTHW).flatten(2).mean(2))
        embedded = [F.normalize(self.head_k(pooled_BC), dim=1) for pooled_BC in pooled]
        if pairs.other is not None:
            embedded += [F.normalize(self.speed_head_k(pooled_BC), dim=1) for pooled_BC in (pooled[0], pooled[-1])]
        return torch.cat(embedded, dim=1)

    def rows(self, size: int, parts: int) -> list[slice]:
        """Return the parts of a batch of this process, each of whole groups of batch normalisation.

        Raises:
            InputError: If the batch cannot be split into that many equal parts.
        """
        if size % parts or (size // parts) % self.group_size:
            possible = [n for n in range(1, size + 1) if size % n == 0 and size // n % self.group_size == 0]
            raise InputError(
                f"the {size} pairs of a process in a batch, in batch-norm groups of {self.group_size}, cannot be "
                f"computed in {parts} equal parts (PREVITS_ACCUMULATE); possible: {possible}"
            )
        return [slice(start, start + size // parts) for start in range(0, size, size // parts)]

    @staticmethod
    def begin_part(encoder: nn.Module, part: int, parts: int) -> None:
        """Set which of several parts of a batch the batch normalisation of an encoder processes next."""
        for module in encoder.modules():
            if isinstance(module, GroupedBatchNorm):
                module.begin_part(part, parts)

    @torch.no_grad()
    def _update_key_encoder(self) -> None:
        """Move the weights of the key encoder towards the query encoder; its statistics and counters do not change."""
        objective = self.experiment.objective
        share = 1 - objective.key_momentum**objective.key_updates
        for own, other in self._key_query_modules():
            torch._foreach_lerp_(list(own.parameters()), list(other.parameters()), share)

    @torch.no_grad()
    def enqueue(self, keys: Keys) -> None:
        """Replace the oldest keys of the queue by new ones; call it after the backward pass, which needs the old ones.

        If a key could not be read, the old key in its place is kept.
        """
        new_ND = keys.key if self.experiment.objective.enqueued == "key" else keys.other
        places = (self.pointer + torch.arange(len(new_ND), device=new_ND.device)) % len(self.queue)
        new_ND = torch.where(keys.usable[:, None], new_ND.to(self.queue.dtype), self.queue[places])
        self.queue.index_copy_(0, places, new_ND)
        self.pointer.add_(len(new_ND)).remainder_(len(self.queue))

    @torch.no_grad()
    def attend(self, query_BCTHW: Tensor, key_BCTHW: Tensor, key_mask_BTHW: Tensor) -> Tensor:
        """Return the attention of each query: where it is similar to the key's foreground; (B, T, H, W), not negative.

        Equations 3 and 4 as in training, on the grid of the last maps. Clips are normalised. Put the model into eval
        mode first.
        """
        maps_BCTHW = self._maps(self.encoder_q, query_BCTHW)
        foreground = self._maps(self.encoder_k, key_BCTHW * key_mask_BTHW[:, None]).flatten(2).mean(2)
        foreground_BD = F.normalize(self.head_k(foreground), dim=1)
        weights_BC = channel_weights(maps_BCTHW.flatten(2).mean(2), self.head_q, foreground_BD)
        return attention_map(maps_BCTHW, weights_BC, self.experiment.objective.cam)

    def average_statistics(self) -> None:
        """Set the batch-norm statistics of all processes to their mean: those of one process with all groups."""
        distributed.average_([value for name, value in self.named_buffers() if "running_" in name])
