import pytest
import torch
from torch.nn import functional as F

from previts.models import losses


def unit(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def test_info_nce_is_cross_entropy_with_the_positive_in_place_0():
    torch.manual_seed(0)
    query, key, queue = unit(5, 8), unit(5, 8), unit(30, 8)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / 0.07
    expected = F.cross_entropy(logits, torch.zeros(5, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(losses.info_nce(query, key, queue, 0.07), expected)


def test_attention_distance_of_equal_scaled_and_disjoint_maps():
    mask = torch.zeros(3, 4, 4)
    mask[:, :2] = 1
    cam = torch.stack([mask[0], 7 * mask[1], 1 - mask[2]])
    torch.testing.assert_close(losses.attention_distance(cam, mask), torch.tensor([0.0, 0.0, 1.0]))


def test_attention_distance_of_a_quarter_covered():
    cam, mask = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    cam[0, 0, 0] = 3
    torch.testing.assert_close(losses.attention_distance(cam, mask), torch.tensor([0.5]))  # 1 - 3 / (3 * 2)


def test_maps_without_direction_have_no_gradient():
    cam = torch.zeros(2, 4, 4)
    cam[1] = 1e-9
    cam.requires_grad_()
    distance = losses.attention_distance(cam, torch.ones(2, 4, 4))
    distance.sum().backward()
    assert torch.equal(distance, torch.ones(2))
    assert torch.equal(cam.grad, torch.zeros(2, 4, 4))


def test_grids_must_agree():
    with pytest.raises(ValueError, match="share a grid"):
        losses.attention_distance(torch.ones(1, 7, 7), torch.ones(1, 4, 4))


def test_values_that_do_not_count_reach_neither_mean_nor_gradient():
    values = torch.tensor([1.0, float("nan"), 3.0, float("inf")], requires_grad=True)
    mean = losses.mean_over(values, torch.tensor([True, False, True, False]))
    mean.backward()
    assert mean.item() == 2
    assert values.grad.tolist() == [0.5, 0, 0.5, 0]


def test_the_mean_of_nothing_is_zero():
    values = torch.tensor([float("nan"), 1.0], requires_grad=True)
    mean = losses.mean_over(values, torch.tensor([False, False]))
    mean.backward()
    assert mean.item() == 0
    assert values.grad.tolist() == [0, 0]
