import pytest
import torch
from torch.nn import functional as F

from previts.models import gradcam, losses
from previts.models.heads import build_head


def scene(kind):
    torch.manual_seed(0)
    head = build_head(kind, 24, 6).double()
    activations = torch.relu(torch.randn(5, 24, 2, 4, 3).double()).requires_grad_()
    key = F.normalize(torch.randn(5, 6).double(), dim=1)
    mask = (torch.rand(5, 2, 4, 3) > 0.5).double()
    return head, activations, key, mask


def closed(head, activations, key):
    return gradcam.channel_weights(activations.mean((2, 3, 4)), head, key)


def by_graph(head, activations, key):
    query = F.normalize(head(activations.mean((2, 3, 4))), dim=1)
    return gradcam.channel_weights_by_autograd(activations, (query * key).sum(1))


def worst(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("form", ["relu", "minmax"])
def test_the_closed_form_equals_the_second_order_graph_in_value_and_gradient(kind, form):
    head, activations, key, mask = scene(kind)
    results = []
    for weights in (closed, by_graph):
        cam = gradcam.attention_map(activations, weights(head, activations, key), form)
        loss = losses.attention_distance(cam, mask).mean()
        gradients = torch.autograd.grad(loss, [activations, *head.parameters()], allow_unused=True)
        results.append([cam, *(g for g in gradients if g is not None)])
    assert len(results[0]) == len(results[1]) == (4 if kind == "linear" else 6)
    for one, other in zip(*results, strict=True):
        assert worst(one, other) < 1e-12


def test_the_gradient_of_the_attention_loss_is_the_difference_quotient():
    head, activations, key, mask = scene("mlp")

    def loss(activations, weight):
        pooled = activations.mean((2, 3, 4))
        result = torch.func.functional_call(head, {"out.weight": weight}, (pooled,))
        query = F.normalize(result, dim=1)
        length = result.norm(dim=1, keepdim=True)
        across = (key - (query * key).sum(1, keepdim=True) * query) / length
        opened = (head.hidden(pooled) > 0).double()
        weights = ((across @ weight) * opened) @ head.hidden.weight
        return losses.attention_distance(gradcam.attention_map(activations, weights, "minmax"), mask).mean()

    weight = head.out.weight.detach().clone().requires_grad_()
    (analytic,) = torch.autograd.grad(loss(activations, weight), weight)
    direction = torch.randn_like(weight)
    step = 1e-6
    quotient = (loss(activations, weight + step * direction) - loss(activations, weight - step * direction)) / (
        2 * step
    )
    torch.testing.assert_close((analytic * direction).sum(), quotient, rtol=1e-6, atol=1e-9)
    ours = gradcam.attention_map(activations, closed(head, activations, key), "minmax")
    (shipped,) = torch.autograd.grad(losses.attention_distance(ours, mask).mean(), head.out.weight)
    torch.testing.assert_close(shipped, analytic, rtol=1e-10, atol=1e-12)


def test_only_the_cell_that_agrees_with_the_key_is_attended():
    # Two channels, an identity head: q points where the mean of the maps does; only one cell pulls it to the key.
    head = build_head("linear", 2, 2)
    head.out.weight.data, head.out.bias.data = torch.eye(2), torch.zeros(2)
    activations = torch.zeros(1, 2, 1, 2, 2)
    activations[0, 0, 0] = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    activations[0, 1, 0, 1, 1] = 1.0
    weights = closed(head, activations, torch.tensor([[0.0, 1.0]]))
    cam = gradcam.attention_map(activations, weights, "relu")
    assert cam[0, 0, 1, 1] > 0
    assert cam.sum() == cam[0, 0, 1, 1]


def test_without_bias_the_evidence_for_and_against_sums_to_zero():
    head, activations, key, _ = scene("linear")
    head.out.bias.data.zero_()
    weights = closed(head, activations, key)
    raw = torch.einsum("bcthw,bc->bthw", activations, weights)
    torch.testing.assert_close(raw.sum((1, 2, 3)), torch.zeros(5).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", ["relu", "minmax"])
def test_all_zero_maps_give_finite_losses_and_gradients(form):
    head = build_head("linear", 8, 4)
    activations = torch.zeros(2, 8, 1, 3, 3, requires_grad=True)
    cam = gradcam.attention_map(activations, closed(head, activations, F.normalize(torch.randn(2, 4), dim=1)), form)
    loss = losses.attention_distance(cam, torch.ones(2, 1, 3, 3)).mean()
    loss.backward()
    assert loss.item() == 1
    assert all(
        torch.isfinite(tensor.grad).all() for tensor in (activations, *head.parameters()) if tensor.grad is not None
    )


def test_scaled_maps_reach_from_0_to_1_whatever_their_size():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-4e-9, 0.0], [4e-9, 0.0]], [[7.0, 7.0], [7.0, 7.0]]])
    expected = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.5], [1.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(gradcam.scaled(maps), expected)


def test_area_pooling_is_the_share_of_each_cell_in_time_and_space():
    mask = torch.zeros(1, 4, 64, 64, dtype=torch.bool)
    mask[0, 0, 8:24, 40:64] = True
    pooled = gradcam.pool_masks(mask, (2, 2, 2), "area")
    expected = torch.zeros(1, 2, 2, 2)
    expected[0, 0, 0, 1] = 16 * 24 / (2 * 32**2)
    torch.testing.assert_close(pooled, expected)
    assert pooled.sum() * 2 * 32**2 == mask.sum()


def test_bilinear_pooling_samples_the_corners():
    mask = torch.zeros(1, 2, 9, 9, dtype=torch.bool)
    mask[0, :, 0, 0] = mask[0, 0, 8, 8] = True
    sampled = gradcam.pool_masks(mask, (1, 3, 3), "bilinear")[0, 0]
    torch.testing.assert_close(sampled, torch.diag(torch.tensor([1.0, 0.0, 0.5])))


def test_attention_iou_counts_cells():
    cam = torch.tensor([[[[1.0, 0.9], [0.1, 0.0]], [[0.0, 0.0], [0.0, 0.6]]]])
    # cells above half of the top: the left two of the first step in time
    mask = torch.tensor([[[[0.4, 0.0], [0.4, 0.1]], [[0.1, 0.0], [0.0, 0.0]]]])
    assert gradcam.attention_iou(cam, mask).item() == pytest.approx(1 / 4)
    assert gradcam.attention_iou(cam, torch.zeros(1, 2, 2, 2)).item() == 0
