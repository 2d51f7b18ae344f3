import copy
from dataclasses import replace

import pytest
import torch
from moving_squares import small_experiment, small_video_experiment
from torch.nn import functional as F

from previts.errors import InputError
from previts.models.encoders import last_maps
from previts.models.gradcam import channel_weights_by_autograd
from previts.models.moco import Clips, Keys, MoCo, Pairs, metric_names

KINDS = ("image", "video")


def changed(kind="image", **objective):
    experiment = small_experiment() if kind == "image" else small_video_experiment()
    return replace(experiment, objective=replace(experiment.objective, **objective))


def make(experiment=None, seed=0):
    torch.manual_seed(seed)
    return MoCo(experiment or changed()).train()


def clips(generator, kind, masked=None, dtype=torch.float32):
    frames = 1 if kind == "image" else 8
    images = torch.randn(8, 3, frames, 64, 64, generator=generator, dtype=dtype)
    mask = torch.zeros(8, frames, 64, 64, dtype=torch.bool)
    mask[:, :, 16:48, 8:40] = True
    sure = torch.ones(8, dtype=torch.bool)
    return Clips(images, mask, sure if masked is None else masked, sure)


def pairs(seed=0, kind="image", masked=None, order=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    query, key, other = (clips(generator, kind, masked, dtype) for _ in range(3))
    order = torch.randperm(8, generator=generator) if order is None else order
    key, other = (Clips(*(value[order] for value in side)) for side in (key, other))
    return Pairs(query, key, other if kind == "video" else None, order)


def step_of(model, batch):
    keys = model.encode_keys(batch)
    return model(batch.query, keys), keys


def named(model, step):
    return dict(zip(metric_names(model.experiment.objective), step.metrics.tolist(), strict=True))


def naive_loss(model, batch):
    """Equations 1 to 6 as printed in the paper: all logits, loops, Grad-CAM by a second-order graph."""
    config, inverse = model.experiment.objective, batch.key_order.argsort()
    size = len(batch.query.clips) // config.batch_norm_groups
    momentum = config.key_momentum**config.key_updates
    key_encoder, key_head = copy.deepcopy(model.encoder_k), copy.deepcopy(model.head_k)
    halves = [(key_encoder, model.encoder_q), (key_head, model.head_q)]
    if config.speed_weight:
        speed_head = copy.deepcopy(model.speed_head_k)
        halves.append((speed_head, model.speed_head_q))
    for mine, theirs in halves:
        for own, query in zip(mine.parameters(), theirs.parameters(), strict=True):
            own.data = momentum * own.data + (1 - momentum) * query.data

    def pooled(encoder, clips):
        return torch.cat([last_maps(encoder, part).mean((2, 3, 4)) for part in clips.split(size)])

    def embed(head, features):
        return F.normalize(head(features), dim=1)

    with torch.no_grad():
        features = pooled(key_encoder, batch.key.clips)[inverse]
        key = embed(key_head, features)
        foreground = embed(key_head, pooled(key_encoder, batch.key.clips * batch.key.mask[:, None])[inverse])
        if batch.other is not None:
            other_features = pooled(key_encoder, batch.other.clips)[inverse]
            other = embed(key_head, other_features)
            fast_key, fast_other = embed(speed_head, features), embed(speed_head, other_features)
    maps = torch.cat([last_maps(model.encoder_q, part) for part in batch.query.clips.split(size)])
    query = embed(model.head_q, maps.mean((2, 3, 4)))

    def contrast(positive):
        losses = []
        for q, k in zip(query, positive, strict=True):
            below = (q @ k / config.temperature).exp() + sum(
                (q @ n / config.temperature).exp() for n in model.queue.clone()
            )
            losses.append(-((q @ k / config.temperature).exp() / below).log())
        return torch.stack(losses).mean()

    contrastive = contrast(key)
    if config.positives == "key+other":
        contrastive = contrastive + contrast(other)
    alpha = channel_weights_by_autograd(maps, (query * foreground).sum(1))
    raw = (alpha[:, :, None, None, None] * maps).sum(1)
    if config.cam == "relu":
        cam = F.relu(raw).flatten(1)
    else:
        low, high = raw.flatten(1).amin(1, keepdim=True), raw.flatten(1).amax(1, keepdim=True)
        cam = (raw.flatten(1) - low) / (high - low)
    frames = batch.query.mask.shape[1] // maps.shape[2]
    grid = F.avg_pool3d(batch.query.mask.to(maps.dtype)[:, None], (frames, 32, 32)).flatten(1)
    attention = torch.stack([1 - (g @ m) / (g.norm() * m.norm()) for g, m in zip(cam, grid, strict=True)]).mean()
    total, speed = contrastive + config.attention_weight * attention, None
    if config.speed_weight:
        fast = embed(model.speed_head_q, maps.mean((2, 3, 4)))
        speed = torch.stack(
            [
                torch.clamp(config.speed_margin - (q @ k - q @ o), min=0)
                for q, k, o in zip(fast, fast_key, fast_other, strict=True)
            ]
        ).mean()
        total = total + config.speed_weight * speed
    return total, contrastive, attention, speed, key


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("image", {}),
        ("video", {}),
        ("image", {"cam": "minmax", "key_updates": 2}),
        ("video", {"cam": "minmax", "positives": "key+other", "speed_margin": 0.5}),
    ],
)
def test_a_step_equals_the_equations_of_the_paper(kind, objective):
    model = make(changed(kind, **objective)).double()
    batch = pairs(kind=kind, dtype=torch.float64)
    oracle = copy.deepcopy(model)
    loss, contrastive, attention, speed, key = naive_loss(oracle, batch)
    loss.backward()
    step, keys = step_of(model, batch)
    step.loss.backward()
    metrics = named(model, step)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-9)
    assert metrics["loss_contrastive"] == pytest.approx(contrastive.item(), rel=1e-9)
    assert metrics["loss_attention"] == pytest.approx(attention.item(), rel=1e-9)
    assert metrics.get("loss_speed") == (None if speed is None else pytest.approx(speed.item(), rel=1e-9))
    torch.testing.assert_close(keys.key, key, rtol=1e-9, atol=1e-12)
    for (name, mine), other in zip(model.named_parameters(), oracle.parameters(), strict=True):
        if mine.requires_grad:
            assert (mine.grad - other.grad).norm() <= 1e-7 * other.grad.norm() + 1e-12, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_encoder_moves_once_a_step_and_takes_no_gradient(kind):
    model = make(changed(kind))
    with torch.no_grad():
        for _, other in model._key_query_modules():
            for parameter in other.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    before = [[parameter.clone() for parameter in own.parameters()] for own, _ in model._key_query_modules()]
    step, _ = step_of(model, pairs(kind=kind))
    step.loss.backward()
    assert len(before) == (3 if kind == "video" else 2)
    for olds, (own, other) in zip(before, model._key_query_modules(), strict=True):
        for old, new, query in zip(olds, own.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(new, 0.9 * old + 0.1 * query)
            assert new.grad is None


def keys_of(values, usable=None):
    none = values[:, :0]
    sure = torch.ones(len(values), dtype=torch.bool) if usable is None else usable
    return Keys(values, none, 100 + values, none, none, sure, sure)


def test_unreadable_keys_do_not_become_negatives():
    model = make()
    before = model.queue.clone()
    usable = torch.tensor([True, False, True, True, True, True, True, False])
    model.enqueue(keys_of(torch.full((8, 32), 3.0), usable))
    assert (model.queue[:8][usable] == 3).all()
    assert torch.equal(model.queue[[1, 7]], before[[1, 7]])
    assert model.pointer == 8


def test_the_queue_wraps_and_keeps_the_newest_keys():
    model = make(changed(queue_size=19))
    written = []
    for number in range(5):
        keys = torch.full((8, 32), float(number))
        keys[:, 0] = torch.arange(8)
        model.enqueue(keys_of(keys))
        written += list(keys)
    newest = written[-19:]
    assert model.pointer == 40 % 19
    assert {tuple(row.tolist()) for row in model.queue} == {tuple(row.tolist()) for row in newest}
    # in order: the oldest is the next to go
    oldest_first = torch.cat([model.queue[model.pointer :], model.queue[: model.pointer]])
    assert torch.equal(oldest_first, torch.stack(newest))


def test_the_released_code_enqueues_the_clip_of_the_other_speed():
    model = make(changed("video", enqueued="other"))
    model.enqueue(keys_of(torch.zeros(8, 32)))
    assert (model.queue[:8] == 100).all()


def test_only_plain_keys_are_enqueued():
    batch = pairs()
    _, keys = step_of(make(), batch)
    other = batch._replace(key=batch.key._replace(mask=~batch.key.mask))
    _, changed_keys = step_of(make(), other)
    torch.testing.assert_close(keys.key, changed_keys.key)
    assert not torch.allclose(keys.foreground, changed_keys.foreground)
    assert keys.key.shape == (8, 32)


def test_the_order_of_the_keys_is_undone():
    # With one normalisation group the order of the keys changes nothing at all.
    model = make(changed(batch_norm_groups=1))
    orders = (torch.arange(8), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4]))
    losses = [step_of(copy.deepcopy(model), pairs(order=order, seed=3))[0].metrics for order in orders]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_permuted_keys_are_normalised_among_other_pairs_than_their_queries():
    # The embedding of a key depends on the pairs of its group, not on those of its query's group.
    model = make()
    order = torch.tensor([0, 5, 2, 7, 4, 1, 6, 3])
    batch = pairs(order=order)
    changed_clips = batch.key.clips.clone()
    changed_clips[:4] += 3 * torch.randn(changed_clips[:4].shape)  # the first group: keys of pairs 0, 5, 2 and 7
    _, before = step_of(copy.deepcopy(model), batch)
    _, after = step_of(copy.deepcopy(model), batch._replace(key=batch.key._replace(clips=changed_clips)))
    moved = (before.key - after.key).abs().amax(1) > 1e-4
    assert moved.nonzero().flatten().tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_without_attention_the_foreground_is_never_encoded(kind):
    sizes = []
    model = make(changed(kind, attention_weight=0.0))
    first = model.encoder_k.conv1 if kind == "image" else model.encoder_k.conv_1a
    first.register_forward_hook(lambda module, given, made: sizes.append(len(given[0])))
    step, _ = step_of(model, pairs(kind=kind))
    assert sizes == ([8] if kind == "image" else [8, 8])
    assert not len(step.cam)
    metrics = named(model, step)
    assert metrics["loss"] == pytest.approx(metrics["loss_contrastive"] + metrics.get("loss_speed", 0), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_query_and_each_kind_of_key_are_encoded_once(kind):
    sizes = []
    model = make(changed(kind))
    for encoder in (model.encoder_q, model.encoder_k):
        first = encoder.conv1 if kind == "image" else encoder.conv_1a
        first.register_forward_hook(lambda module, given, made: sizes.append(len(given[0])))
    step_of(model, pairs(kind=kind))
    assert sizes == [8] * (3 if kind == "image" else 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_masks_is_the_plain_model(kind):
    model = make(changed(kind))
    plain = copy.deepcopy(model)
    step, _ = step_of(model, pairs(kind=kind, masked=torch.zeros(8, dtype=torch.bool)))
    step.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    metrics = named(model, step)
    assert metrics["loss_attention"] == metrics["masked_share"] == 0
    assert metrics["loss"] == pytest.approx(metrics["loss_contrastive"] + metrics.get("loss_speed", 0), rel=1e-6)
    torch.testing.assert_close(step_of(plain, pairs(kind=kind))[0].metrics[1], step.metrics[1])


def test_attention_is_averaged_over_the_pairs_with_both_masks():
    model, both = make(), torch.tensor([True, False, True, True, False, False, True, True])

    def attention(batch):
        twin = copy.deepcopy(model)
        return named(twin, step_of(twin, batch)[0])["loss_attention"]

    alone = []
    for row in both.nonzero().flatten():
        only = torch.zeros(8, dtype=torch.bool)
        only[row] = True
        alone.append(attention(pairs(masked=only)))
    together = attention(pairs(masked=both))
    assert named(model, step_of(model, pairs(masked=both))[0])["masked_share"] == 5 / 8
    assert together == pytest.approx(sum(alone) / len(alone), rel=1e-4)
    # a pair whose key has no mask does not count either
    batch = pairs()
    key_only = batch._replace(key=batch.key._replace(masked=both[batch.key_order]))
    assert attention(key_only) == pytest.approx(together, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable_pairs_do_not_count_in_the_loss(kind):
    batch = pairs(kind=kind)
    usable = torch.tensor([True, True, False, True, True, True, True, True])
    shuffled = usable[batch.key_order]
    sides = [
        batch._replace(query=batch.query._replace(usable=usable)),
        batch._replace(key=batch.key._replace(usable=shuffled)),
    ]
    if batch.other is not None:
        sides.append(batch._replace(other=batch.other._replace(usable=shuffled)))
    results = [step_of(make(changed(kind)), side)[0].metrics for side in sides]
    for result in results[1:]:
        torch.testing.assert_close(results[0], result)
    assert not torch.allclose(results[0], step_of(make(changed(kind)), batch)[0].metrics)
    nothing = torch.zeros(8, dtype=torch.bool)
    assert step_of(make(changed(kind)), batch._replace(query=batch.query._replace(usable=nothing)))[0].loss == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_equals_the_whole_batch(kind):
    whole = make(changed(kind)).double()
    parted = copy.deepcopy(whole)
    batch = pairs(kind=kind, dtype=torch.float64)
    step, keys = step_of(whole, batch)
    step.loss.backward()
    parts = parted.rows(8, 2)
    split_keys, metrics = parted.encode_keys(batch, 2), 0
    for number, rows in enumerate(parts):
        parted.begin_part(parted.encoder_q, number, 2)
        part = parted(Clips(*(value[rows] for value in batch.query)), split_keys, rows.start)
        part.loss.backward()
        metrics = metrics + part.metrics
    torch.testing.assert_close(metrics, step.metrics, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(split_keys.key, keys.key, rtol=1e-9, atol=1e-12)
    for name, value in whole.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(value, parted.state_dict()[name], rtol=1e-9, atol=1e-12, msg=name)
    for (name, one), other in zip(whole.named_parameters(), parted.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-10, msg=name)


def test_parts_must_hold_whole_groups():
    with pytest.raises(InputError, match=r"in 4 equal parts \(PREVITS_ACCUMULATE\); possible: \[1, 2\]"):
        make().rows(8, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_a_trained_model_has_the_grid_of_the_last_layer(kind):
    experiment = changed(kind)
    model = make(replace(experiment, model=replace(experiment.model, bn_momentum=1.0)))
    batch = pairs(kind=kind)
    step_of(model, batch)  # statistics as of this batch
    model.eval()
    cam = model.attend(batch.query.clips, batch.key.clips, batch.key.mask)
    assert cam.shape == (8, 1, 2, 2)
    assert (cam >= 0).all()
    assert cam.max() > 0


def test_compiled_encoders_compute_the_same():
    plain, compiled = make().eval(), make().eval()
    torch._dynamo.reset()
    compiled.encoder_q.features = torch.compile(compiled.encoder_q.features, backend="eager")
    batch = pairs()
    torch.testing.assert_close(
        plain.attend(batch.query.clips, batch.key.clips, batch.key.mask),
        compiled.attend(batch.query.clips, batch.key.clips, batch.key.mask),
    )
    assert plain.state_dict().keys() == compiled.state_dict().keys()


@pytest.mark.parametrize(("field", "value"), [("batch_norm_groups", 3), ("queue_size", 7)])
def test_sizes_that_do_not_fit_name_both_fields(field, value):
    with pytest.raises(InputError, match=rf"(?s)(?=.*{field})(?=.*batch_size)"):
        MoCo(changed(**{field: value}))
