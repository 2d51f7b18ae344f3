import numpy as np

from previts.pretraining.schedule import Purpose, Schedule, generator


def schedule(videos=10, batch=4, epochs=3, seed=0):
    return Schedule(videos, batch, epochs, seed)


def test_an_epoch_takes_every_video_at_most_once():
    plan = schedule(videos=11, batch=4)
    assert plan.steps_per_epoch == 2
    for epoch in range(3):
        taken = np.concatenate([plan.samples(2 * epoch + place) for place in range(2)])
        assert len(set(taken)) == 8
        assert set(taken) < set(range(11))
    assert not np.array_equal(plan.samples(0), plan.samples(2))


def test_few_videos_fill_a_batch_in_rounds():
    plan = schedule(videos=3, batch=8)
    assert plan.steps_per_epoch == 1
    samples = plan.samples(0)
    assert len(set(samples)) == 8  # each with draws of its own
    assert sorted(np.bincount(samples % 3)) == [2, 3, 3]


def test_keys_have_another_order_in_every_step():
    plan = schedule(videos=100, batch=32)
    orders = [plan.key_order(step) for step in range(4)]
    assert all(sorted(order) == list(range(32)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_depends_on_seed_and_epoch_only():
    plan = schedule(videos=12, batch=4)
    again = schedule(videos=12, batch=4)
    for step in (7, 2, 7):  # in any order
        assert np.array_equal(plan.samples(step), again.samples(step))
        assert np.array_equal(plan.key_order(step), again.key_order(step))
    assert not np.array_equal(plan.samples(2), schedule(videos=12, batch=4, seed=1).samples(2))
    assert not np.array_equal(plan.key_order(2), schedule(videos=12, batch=4, seed=1).key_order(2))


def test_steps_and_epochs_are_counted_by_whole_batches():
    plan = schedule(videos=11, batch=4, epochs=3)
    assert (plan.steps_per_epoch, plan.total_steps) == (2, 6)
    assert [plan.epoch(step) for step in range(6)] == [0, 0, 1, 1, 2, 2]


def test_each_purpose_has_its_own_random_numbers():
    purposes = [(1, 2, 3, purpose) for purpose in Purpose]
    roles = [(1, 2, 3, Purpose.CROP, role) for role in (1, 2)]
    drawn = [generator(*counter).random() for counter in (*purposes, *roles)]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [generator(*counter).random() for counter in (*purposes, *roles)]
    # numpy ignores trailing zeros of a seed, so 0 must not be a purpose
    assert 0 not in set(Purpose)
