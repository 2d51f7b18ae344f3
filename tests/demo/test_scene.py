"""Oracles: closed forms of a square, and frames with and without an object."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from previts.demo.cast.casting import Shot, compose
from previts.demo.cast.motion import Camera, Motion
from previts.demo.cast.puppets import Part, build_puppet
from previts.demo.scene import Actor, Light, Scene, render
from previts.media import masks


def square(size: float = 1.0, motion: Motion | None = None, **scene) -> Scene:
    half = 0.5
    part = Part("body", np.array([(-half, -half), (half, -half), (half, half), (-half, half)]), ((250, 40, 30),))
    puppet = build_puppet([part], 100, np.random.default_rng(0))
    motion = motion or Motion("pulse", (0.5, 0.5), (0.0, 0.0), 4.0)
    backdrop = np.full((200, 240, 3), 90, np.uint8)
    actor = Actor(puppet, size * 40, motion, shadow=False)
    return Scene(160, 120, 4.0, backdrop, (actor,), light=Light(noise=0), **scene)


def test_the_mask_of_a_square_equals_its_closed_form():
    # 40 px a side in the middle of a frame of 160 x 120; the pulse scales it by 1 + 0.3 sin.
    np.testing.assert_allclose(masks.box(render(square(), 0.0).masks[0]), (60, 40, 100, 80), atol=1)
    assert render(square(), 0.0).masks[0].sum() == pytest.approx(1600, rel=0.04)
    assert render(square(), 0.75).masks[0].sum() == pytest.approx(1600 * 1.3**2, rel=0.04)


def test_the_foreground_is_cut_out_of_the_mask():
    front = np.zeros((120, 160, 4), np.float32)
    front[:, 80:, :] = (10, 10, 10, 1)  # opaque from the middle to the right
    shown = render(square(foreground=front), 0.0)
    np.testing.assert_allclose(masks.box(shown.masks[0]), (60, 40, 80, 80), atol=1)
    assert (shown.image[60, 90] == 10).all()


def test_a_later_actor_occludes_the_first():
    scene = square()
    both = replace(scene, actors=(scene.actors[0], replace(scene.actors[0], size=20.0)))
    first, second = render(both, 0.0).masks
    assert second.sum() == pytest.approx(400, rel=0.08)
    assert first.sum() == pytest.approx(1200, rel=0.08)
    assert not (first & second).any()


def test_the_zoom_of_the_camera_scales_the_object():
    scene = square(camera=Camera(zoom=0.5))
    # Half of the video: the zoom is 1 + 0.25 (1 - cos(0.8 pi)), and the pulse is at 2/3 of its cycle.
    zoom = 1 + 0.25 * (1 - np.cos(2 * np.pi * 0.5 * 0.8))
    pulse = 1 + 0.3 * np.sin(2 * np.pi * 2 / 3)
    assert render(scene, 2.0).masks[0].sum() == pytest.approx(1600 * (zoom * pulse) ** 2, rel=0.04)


@pytest.mark.parametrize("kind", ["dog", "butterfly", "guitar", "goldfish"])
def test_a_hidden_object_changes_the_frame_only_inside_its_mask(kind):
    scene = compose(3, f"difference/{kind}", Shot(kind, "street", "walk", 224, 168, 4.0))
    # The shadow is outside the mask, so this scene has none. Light and noise are the same in both frames.
    scene = replace(scene, actors=(replace(scene.actors[0], shadow=False),), blur=0.0)
    for time in (0.0, 1.3, 2.9):
        shown, hidden = render(scene, time), render(scene, time, hidden=frozenset({0}))
        changed = (shown.image != hidden.image).any(2)
        mask = shown.masks[0].astype(np.uint8)
        assert mask.any()
        assert not hidden.masks[0].any()
        assert not changed[cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0].any()
        assert changed[mask == 1].mean() > 0.98
