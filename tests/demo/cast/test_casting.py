"""Oracles: shares of many draws, closed forms of sizes, and scenes composed twice."""

from dataclasses import replace

import numpy as np
import pytest

from previts.demo.cast import casting
from previts.demo.cast.casting import Shot, compose, snapshot
from previts.demo.cast.kinds import CLASSES
from previts.demo.cast.puppets import Puppet
from previts.demo.scene import render
from previts.demo.scenery.backgrounds import FAMILIES


def test_generators_depend_on_seed_and_name_only():
    first, same, seed, name = (
        casting.generator(seed, name).random() for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    assert first == same
    assert len({first, seed, name}) == 3


@pytest.mark.parametrize("correlation", [0.0, 0.7, 1.0])
def test_a_foreign_background_is_any_family_except_home(correlation: float):
    rng = np.random.default_rng(0)
    families = [casting.family_for(rng, 3, correlation) for _ in range(2000)]
    homes = np.mean([family == FAMILIES[3] for family in families])
    assert homes == pytest.approx(correlation, abs=4 * np.sqrt(0.25 / 2000))
    if correlation < 1:
        assert set(families) - {FAMILIES[3]} == set(FAMILIES) - {FAMILIES[3]}


def test_kinds_are_drawn_from_their_class():
    rng = np.random.default_rng(0)
    for name, kinds in CLASSES.items():
        assert {casting.kind_of(rng, name) for _ in range(60)} == set(kinds)


def test_the_size_gives_the_share_of_the_frame_unless_the_puppet_would_not_fit():
    square = Puppet((), (), 1.0, (-0.5, -0.5, 0.5, 0.5))
    assert casting.size_for(square, 200, 100, 0.02) == pytest.approx(20)  # 20 x 20 of 200 x 100 pixels
    assert casting.size_for(square, 200, 100, 0.9) == pytest.approx(78)
    assert casting.size_for(replace(square, box=(-1.0, -0.1, 1.0, 0.1)), 200, 100, 0.9) == pytest.approx(78)


def test_a_scene_is_the_same_after_the_caches_are_cleared_and_other_for_another_name():
    shot = Shot("cat", "room", "hop", 96, 72, 2.0, passer=True, clutter=True)
    first = render(compose(1, "x", shot), 0.5)
    casting.clear_caches()
    again, other = (render(compose(1, name, shot), 0.5) for name in ("x", "y"))
    assert len(first.masks) == 2
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.image != other.image).any()


def test_a_snapshot_has_one_actor_for_each_kind_and_the_first_is_the_largest():
    scene, time = snapshot(0, "x", ("dog", "cat", "bird"), "meadow", size=(224, 168), split="train")
    assert 0 <= time < scene.seconds
    assert (scene.width, scene.height) == (224, 168)
    areas = [actor.size**2 * actor.puppet.area for actor in scene.actors]
    assert len(areas) == 3
    assert areas[0] == max(areas)
