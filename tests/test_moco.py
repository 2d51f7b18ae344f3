import copy
from dataclasses import replace

import pytest
import torch
from moving_squares import small_experiment
from torch.nn import functional as F

from previts.errors import InputError
from previts.moco import FIGURES, MoCo, Pairs


def changed(**objective):
    experiment = small_experiment()
    return replace(experiment, objective=replace(experiment.objective, **objective))


def make(experiment=None, seed=0):
    torch.manual_seed(seed)
    return MoCo(experiment or changed()).train()


def pairs(seed=0, masked=None, order=None):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 8, 3, 64, 64, generator=generator)
    masks = torch.zeros(2, 8, 64, 64, dtype=torch.bool)
    masks[:, :, 16:48, 8:40] = True
    masked = torch.ones(8, dtype=torch.bool) if masked is None else masked
    order = torch.randperm(8, generator=generator) if order is None else order
    sure = torch.ones(8, dtype=torch.bool)
    return Pairs(images[0], masks[0], masked, sure, images[1][order], masks[1][order], masked[order], sure, order)


def naive_loss(model, batch):
    """Equations 1 and 3-6 as the paper puts them: logits in one table, Grad-CAM by a graph of the graph."""
    config, inverse = model.experiment.objective, batch.key_order.argsort()
    size = len(batch.query) // config.batch_norm_groups
    key_encoder, key_head = copy.deepcopy(model.encoder_k), copy.deepcopy(model.head_k)
    for mine, query in zip(key_encoder.parameters(), model.encoder_q.parameters(), strict=True):
        mine.data = config.key_momentum * mine.data + (1 - config.key_momentum) * query.data
    for mine, query in zip(key_head.parameters(), model.head_q.parameters(), strict=True):
        mine.data = config.key_momentum * mine.data + (1 - config.key_momentum) * query.data
    with torch.no_grad():

        def embed(images):
            parts = [F.normalize(key_head(key_encoder(part)), dim=1) for part in images.split(size)]
            return torch.cat(parts)[inverse]

        key, foreground = embed(batch.key), embed(batch.key * batch.key_mask[:, None])
    maps = torch.cat([model.encoder_q.features(part) for part in batch.query.split(size)])
    query = F.normalize(model.head_q(maps.mean((2, 3))), dim=1)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ model.queue.clone().T], 1) / config.temperature
    contrastive = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))
    (gradient,) = torch.autograd.grad((query * foreground).sum(), maps, create_graph=True)
    cam = F.relu((gradient.sum((2, 3), keepdim=True) * maps).sum(1)).flatten(1)
    grid = F.avg_pool2d(batch.query_mask.float()[:, None], 32).flatten(1)
    attention = (1 - F.cosine_similarity(cam, grid)).mean()
    return contrastive + config.attention_weight * attention, contrastive, attention, key


def test_a_step_is_the_paper_written_out():
    model, batch = make(), pairs()
    oracle = copy.deepcopy(model)
    loss, contrastive, attention, key = naive_loss(oracle, batch)
    loss.backward()
    step = model(batch)
    step.loss.backward()
    figures = dict(zip(FIGURES, step.figures.tolist(), strict=True))
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert figures["loss_contrastive"] == pytest.approx(contrastive.item(), rel=1e-4)
    assert figures["loss_attention"] == pytest.approx(attention.item(), rel=1e-4)
    torch.testing.assert_close(step.keys, key, rtol=1e-3, atol=1e-5)
    for (name, mine), other in zip(model.named_parameters(), oracle.parameters(), strict=True):
        if mine.requires_grad:
            assert (mine.grad - other.grad).norm() <= 2e-3 * other.grad.norm() + 1e-5, name


def test_the_key_encoder_moves_once_and_takes_no_gradient():
    model = make()
    with torch.no_grad():
        for parameter in model.encoder_q.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    before = [parameter.clone() for parameter in model.encoder_k.parameters()]
    model(pairs()).loss.backward()
    for old, new, query in zip(before, model.encoder_k.parameters(), model.encoder_q.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * query)
        assert new.grad is None


def test_the_ring_wraps_and_keeps_the_newest_keys():
    model = make(changed(queue_size=19))
    written = []
    for number in range(5):
        keys = torch.full((8, 32), float(number))
        keys[:, 0] = torch.arange(8)
        model.enqueue(keys)
        written += list(keys)
    newest = written[-19:]
    assert model.pointer == 40 % 19
    assert {tuple(row.tolist()) for row in model.queue} == {tuple(row.tolist()) for row in newest}


def test_only_plain_keys_are_enqueued():
    batch = pairs()
    step = make()(batch)
    other = make()(batch._replace(key_mask=~batch.key_mask))
    torch.testing.assert_close(step.keys, other.keys)
    assert step.keys.shape == (8, 32)


def test_the_order_of_the_keys_is_undone():
    # With one normalisation group the order of the keys changes nothing at all.
    model = make(changed(batch_norm_groups=1))
    orders = (torch.arange(8), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4]))
    losses = [copy.deepcopy(model)(pairs(order=order, seed=3)).figures for order in orders]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_without_attention_the_foreground_is_never_encoded():
    sizes = []
    model = make(changed(attention_weight=0.0))
    model.encoder_k.conv1.register_forward_hook(lambda module, given, made: sizes.append(len(given[0])))
    step = model(pairs())
    assert sizes == [8]
    assert len(step.figures) == 3
    assert step.figures[0] == step.figures[1]


def test_the_query_is_encoded_once_and_the_keys_in_one_pass():
    sizes = []
    model = make()
    for encoder in (model.encoder_q, model.encoder_k):
        encoder.conv1.register_forward_hook(lambda module, given, made: sizes.append(len(given[0])))
    model(pairs())
    assert sizes == [8, 16]


def test_a_batch_without_masks_is_plain_moco():
    model = make()
    plain = copy.deepcopy(model)
    step = model(pairs(masked=torch.zeros(8, dtype=torch.bool)))
    step.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    figures = dict(zip(FIGURES, step.figures.tolist(), strict=True))
    assert figures["loss_attention"] == 0
    assert figures["loss"] == figures["loss_contrastive"]
    torch.testing.assert_close(plain(pairs()).figures[1], step.figures[1])


def test_attention_is_averaged_over_the_pairs_with_both_masks():
    model, both = make(), torch.tensor([True, False, True, True, False, False, True, True])
    alone = []
    for row in both.nonzero().flatten():
        only = torch.zeros(8, dtype=torch.bool)
        only[row] = True
        alone.append(copy.deepcopy(model)(pairs(masked=only)).figures[3])
    together = copy.deepcopy(model)(pairs(masked=both)).figures[3]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-4, atol=1e-6)
    # a key without a mask counts as little as a query without one
    batch = pairs()
    key_only = batch._replace(key_masked=both[batch.key_order])
    torch.testing.assert_close(copy.deepcopy(model)(key_only).figures[3], together, rtol=1e-4, atol=1e-6)


def test_unreadable_pairs_have_no_part_in_the_loss():
    batch = pairs()
    usable = torch.tensor([True, True, False, True, True, True, True, True])
    one = make()(batch._replace(query_usable=usable)).figures
    other = make()(batch._replace(key_usable=usable[batch.key_order])).figures
    torch.testing.assert_close(one, other)
    nothing = torch.zeros(8, dtype=torch.bool)
    assert make()(batch._replace(query_usable=nothing)).loss == 0


def test_attention_of_a_trained_model_has_the_grid_of_the_last_layer():
    model = make().eval()
    batch = pairs()
    cam = model.attend(batch.query, batch.key, batch.key_mask)
    assert cam.shape == (8, 2, 2)
    assert (cam >= 0).all()


@pytest.mark.parametrize(("field", "value"), [("batch_norm_groups", 3), ("queue_size", 7)])
def test_sizes_that_do_not_fit_name_both_fields(field, value):
    with pytest.raises(InputError, match=rf"(?s)(?=.*{field})(?=.*batch_size)"):
        MoCo(changed(**{field: value}))
