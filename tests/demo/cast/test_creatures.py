import numpy as np
import pytest

from previts.demo.cast import creatures
from previts.demo.cast.creatures import Coat

COATS = [
    Coat((200, 100, 50), (220, 180, 160), (20, 20, 20), "fur"),
    Coat((50, 60, 70), (90, 90, 90), (9, 9, 9), "plain"),
]


def test_a_picked_coat_is_near_one_of_the_coats():
    rng = np.random.default_rng(0)
    picked = [creatures.pick(rng, COATS) for _ in range(50)]
    assert {coat.texture for coat in picked} == {"fur", "plain"}
    for coat in picked:
        given = COATS[0] if coat.texture == "fur" else COATS[1]
        np.testing.assert_allclose(coat.back, given.back, atol=60)


def test_colours_of_the_far_side_and_of_the_muzzle_are_closed_forms():
    np.testing.assert_allclose(creatures.darker([(100, 50, 10)]), [(72, 36, 7.2)])
    assert creatures.pinkish((26, 60, 100)) == pytest.approx((126, 100, 120))


def test_an_eye_is_a_pupil_and_a_glint_inside_its_white():
    white, iris, glint = (detail.points for detail in creatures.eye(0.3, -0.1, 0.05))
    for points in (iris, glint):
        assert (np.hypot(*(points - (0.3, -0.1)).T) <= 0.05 + 1e-9).all()
    np.testing.assert_allclose(np.hypot(*(white - (0.3, -0.1)).T), 0.05)
    assert iris[:, 0].mean() > 0.3
