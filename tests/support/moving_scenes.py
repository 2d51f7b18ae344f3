"""Synthetic scenes for tests of copies: a landscape, in front of which discs move on paths of their own."""

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
HEIGHT, WIDTH, FPS = 96, 128, 8.0


def landscape(place: int) -> Frame:
    """Return a picture (height, width, 3) of smooth random shapes."""
    coarse = np.random.default_rng([place, 1]).integers(30, 226, (7, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def scene(place: int, start: float = 0.0, seconds: float = 4.0) -> list[Frame]:
    """Return the frames of [start, start + seconds) at a place; its discs never repeat their movement."""
    background, generator = landscape(place), np.random.default_rng([place, 2])
    speeds, phases = generator.uniform(0.4, 1.6, (3, 4)), generator.uniform(0, 6, (3, 4))
    colours = generator.integers(0, 256, (3, 3)).tolist()
    frames = []
    for time in start + np.arange(round(seconds * FPS)) / FPS:
        image = background.copy()
        for speed, phase, colour in zip(speeds, phases, colours, strict=True):
            x = 0.5 + 0.3 * np.sin(speed[0] * time + phase[0]) + 0.15 * np.sin(2.3 * speed[1] * time + phase[1])
            y = 0.5 + 0.3 * np.sin(speed[2] * time + phase[2]) + 0.15 * np.sin(1.7 * speed[3] * time + phase[3])
            cv2.circle(image, (round(WIDTH * x), round(HEIGHT * y)), 15, colour, -1, cv2.LINE_AA)
        frames.append(image)
    return frames
