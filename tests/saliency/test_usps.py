"""Deep-USPS. Oracles: the loss by loops over pixels, closed forms of a moving average, a training without a stop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_network import SMALL

from previts.processes import workers
from previts.saliency import usps

CPU = torch.device("cpu")


def looped_loss(saliency, target, threshold, beta2):
    losses = []
    for p_HW, t_HW in zip(saliency, target, strict=True):
        hits = alarms = misses = 0.0
        for p, t in zip(p_HW.ravel(), t_HW.ravel(), strict=True):
            if t > threshold and p > t:
                p = 1.0
            if t < threshold and p < t:
                p = 0.0
            if t > threshold:
                hits, misses = hits + p, misses + (1 - p)
            else:
                alarms += p
        precision, recall = hits / (hits + alarms + 1e-5), hits / (hits + misses + 1e-5)
        losses.append(1 - (1 + beta2) * precision * recall / (beta2 * precision + recall + 1e-5))
    return np.mean(losses)


@pytest.mark.parametrize(("threshold", "beta2"), [(0.5, 1.0), (0.31, 1.0), (0.5, 4.0), (0.25, 0.3)])
def test_the_loss_equals_loops_over_pixels(threshold, beta2):
    generator = np.random.default_rng(0)
    saliency, target = generator.random((4, 9, 7)), generator.random((4, 9, 7))
    found = usps.f_measure_loss(torch.from_numpy(saliency), torch.from_numpy(target), threshold, beta2)
    assert found.item() == pytest.approx(looped_loss(saliency, target, threshold, beta2), rel=1e-6)


def test_correct_pixels_pass_no_gradient_and_others_move_to_the_target():
    target = torch.tensor([[[0.9, 0.9, 0.1, 0.1]]])
    saliency = torch.tensor([[[0.95, 0.4, 0.05, 0.6]]], requires_grad=True)
    usps.f_measure_loss(saliency, target, 0.5, 1.0).backward()
    grad = saliency.grad.flatten().tolist()
    assert grad[0] == grad[2] == 0
    assert grad[1] < 0 < grad[3]  # descent raises the missed pixel and lowers the false one


def test_the_loss_is_0_for_the_target_and_1_for_its_complement():
    truth = torch.zeros(1, 8, 8)
    truth[:, 2:5, 2:5] = 1
    assert usps.f_measure_loss(truth, truth, 0.5, 1.0).item() == pytest.approx(0, abs=1e-4)
    assert usps.f_measure_loss(1 - truth, truth, 0.5, 1.0).item() == pytest.approx(1, abs=1e-4)
    nothing = torch.zeros(1, 8, 8, requires_grad=True)
    loss = usps.f_measure_loss(nothing, torch.zeros(1, 8, 8), 0.5, 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(nothing.grad).all()
    with pytest.raises(ValueError, match="shapes must agree"):
        usps.f_measure_loss(truth, truth[:, :4], 0.5, 1.0)


def test_recall_counts_more_with_a_larger_beta():
    truth = torch.zeros(1, 8, 8)
    truth[:, 2:6, 2:6] = 1
    missing, spilling = truth.clone(), truth.clone()
    missing[:, 2:4] = 0
    spilling[:, 6:, :] = 1
    for beta2, worse, better in ((4.0, missing, spilling), (0.3, spilling, missing)):
        losses = [usps.f_measure_loss(found, truth, 0.5, beta2).item() for found in (worse, better)]
        assert losses[0] > losses[1]


def test_the_history_is_the_weighted_mean_of_the_predictions():
    generator = np.random.default_rng(1)
    predicted = generator.random((4, 2, 3, 3)).astype(np.float32)  # epochs, images
    history = usps.History(2, 3, 0.7)
    for epoch in range(4):
        history.add(np.array([0]), predicted[epoch, :1])
        if epoch != 2:
            history.add(np.array([1]), predicted[epoch, 1:])
    weights = 0.7 ** np.arange(4)[::-1]
    expected = (weights[:, None, None] * predicted[:, 0]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(history.levels()[0] / 255, expected, atol=0.004)
    fewer = 0.7 ** np.arange(3)[::-1]
    expected = (fewer[:, None, None] * predicted[[0, 1, 3], 1]).sum(axis=0) / fewer.sum()
    np.testing.assert_allclose(history.levels()[1] / 255, expected, atol=0.004)


def test_an_image_without_predictions_has_an_empty_history():
    history = usps.History(2, 4, 0.7)
    history.add(np.array([1]), np.ones((1, 4, 4), np.float32))
    assert history.levels()[0].max() == 0
    assert history.levels()[1].min() == 255


@pytest.mark.parametrize("count", [2, 7, 8, 9, 16, 17, 25])
def test_batches_contain_each_image_once_and_at_least_two_images(count):
    found = list(usps.minibatches(np.arange(count), 8))
    np.testing.assert_array_equal(np.concatenate(found), np.arange(count))
    assert all(2 <= len(numbers) <= 9 for numbers in found)


def discs(count, side=32, seed=0):
    """Return images of bright discs on dark grain, their masks, and noisy maps, every fourth of which is empty."""
    generator = np.random.default_rng(seed)
    images = generator.integers(20, 60, (count, side, side, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:side, :side]
    truth = np.zeros((count, side, side), bool)
    for number in range(count):
        row, column = generator.uniform(10, side - 10, 2)
        truth[number] = (rows - row) ** 2 + (columns - column) ** 2 < generator.uniform(5, 8) ** 2
        images[number][truth[number]] = generator.integers(150, 250, 3)
    noisy = np.where(truth, 0.7, 0.2) + generator.normal(0, 0.25, truth.shape)
    noisy[::4] = 0.1
    return images, truth, usps.to_levels(noisy.astype(np.float32))


def overlap(levels, truth):
    found = levels > 127
    return float(np.mean((found & truth).sum(axis=(1, 2)) / (found | truth).sum(axis=(1, 2))))


@pytest.mark.slow
def test_a_round_improves_its_maps():
    images, truth, noisy = discs(64)
    config = replace(SMALL, round_epochs=12)
    training = usps.round_training(0, "rbd", usps.build_network(config, None), config, CPU)
    refined = usps.refine_round(training, images, noisy, "test", workers.in_order)
    assert overlap(refined, truth) > overlap(noisy, truth) + 0.2
    assert overlap(refined[::4], truth[::4]) > 0.5  # images whose first map is empty


def test_a_resumed_training_equals_one_without_a_stop():
    images, _, noisy = discs(20)
    maps = [noisy, noisy[..., ::-1].copy()]
    config = replace(SMALL, batch_size=6)

    def begin():
        return usps.fusion_training(usps.build_network(config, None), config, CPU)

    straight = begin()
    losses = [straight.run_epoch(images, maps) for _ in range(4)]
    stopped = begin()
    assert [stopped.run_epoch(images, maps) for _ in range(2)] == losses[:2]
    state = stopped.state()
    resumed = begin()
    resumed.restore(state)
    assert [resumed.run_epoch(images, maps) for _ in range(2)] == losses[2:]
    for one, other in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_learning_rate_decays_as_a_polynomial():
    images, _, noisy = discs(8)
    training = usps.fusion_training(usps.build_network(SMALL, None), SMALL, CPU)
    rates = []
    for _ in range(4):
        training.run_epoch(images, [noisy])
        rates.append(training.optimiser.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [3e-3 * (1 - epoch / 4) ** 0.9 for epoch in range(4)])


def test_the_seed_decides_the_initial_weights_and_the_global_generator_is_unchanged():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = usps.build_network(SMALL, None)
    assert torch.rand(1) == expected
    other, third = usps.build_network(SMALL, None), usps.build_network(replace(SMALL, seed=1), None)
    assert torch.equal(one.layer0[0].weight, other.layer0[0].weight)
    assert not torch.equal(one.layer0[0].weight, third.layer0[0].weight)


def test_recoloured_images_differ_at_the_same_pixels():
    generator = np.random.default_rng(2)
    images = torch.from_numpy(generator.integers(90, 160, (40, 6, 5, 3), dtype=np.uint8))
    images[:, :2] = images[:, 5:, :1].clone().expand(-1, 2, 5, -1)  # an even region
    other = usps.recolour(images, 0.5, np.random.default_rng(3))
    changed = (other - images).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert 10 < changed.sum() < 30
    for new, old in zip(other, images, strict=True):
        assert (new[:2] - new[0, 0]).abs().max() < 1e-3
        assert ((new - new[0, 0]).abs().amax(2) > 1e-2)[2:].equal(((old.int() - old[0, 0].int()).abs().amax(2) > 0)[2:])
    assert torch.equal(usps.recolour(images, 0.0, np.random.default_rng(3)), images.float())


def test_a_loss_of_nan_stops_the_training():
    images, _, noisy = discs(8)
    training = usps.fusion_training(usps.build_network(SMALL, None), SMALL, CPU)
    with torch.no_grad():
        training.network.seg.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1"):
        training.run_epoch(images, [noisy])
