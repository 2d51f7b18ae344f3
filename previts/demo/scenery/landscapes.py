"""Backgrounds with a wide view: meadow, sky, street, desert and room.

Not part of the paper.
"""

from itertools import pairwise

import numpy as np

from previts.demo.scenery.elements import clouds, flat, gradient, land, ridge, scaled, to_bytes
from previts.demo.scenery.textures import Image, ellipse, fbm, fill, smooth, step, stroke, vary


def meadow(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return hills, grass blades and flowers under a sky."""
    sky = vary((150, 200, 236), rng)
    image = to_bytes(
        clouds(gradient(height, width, [(0, sky), (0.45, (226, 238, 240)), (1, (226, 238, 240))]), rng, 0.4, 0.5)
    )
    horizon = height * rng.uniform(0.3, 0.42)
    for depth, colour in enumerate([(120, 168, 148), (104, 160, 92)]):
        land(image, ridge(width, horizon + depth * 0.05 * height, 0.14 * height, rng), vary(colour, rng))
    for x in rng.uniform(0, width, 9):
        for _ in range(5):
            size = height * rng.uniform(0.02, 0.045)
            fill(
                image,
                ellipse(x + rng.normal(0, size), horizon + rng.normal(0, size * 0.6), size, size),
                vary((62, 112, 62), rng),
            )
    grass = vary((110, 168, 56), rng)
    ground = ridge(width, horizon + 0.1 * height, 0.05 * height, rng)
    land(image, ground, grass)
    top = int(ground[:, 1].min())
    patch = fbm(height, width, rng, cells=5, octaves=4, stretch=2.2)[..., None]
    blend = (np.arange(height)[:, None, None] > ground[:, 1][None, :, None]).astype(np.float32)
    image = to_bytes(image * (1 + blend * 0.42 * (patch - 0.5)))
    for y in np.sort(rng.uniform(top + 0.05 * height, height * 1.02, 330)):
        x, size = rng.uniform(0, width), height * (0.02 + 0.08 * (y - top) / height)
        stroke(
            image,
            np.array([(x, y), (x + rng.normal(0, 0.3) * size, y - size)]),
            scaled(vary(grass, rng, 30), rng.uniform(0.72, 1.18)),
            height / 300,
        )
    petals = [vary(c, rng) for c in ((250, 246, 240), (246, 214, 60), (226, 110, 160))]
    for y in np.sort(rng.uniform(top + 0.1 * height, height, 46)):
        x, size = rng.uniform(0, width), height * (0.004 + 0.014 * (y - top) / height)
        fill(image, ellipse(x, y, size, size * 0.8, count=10), petals[int(rng.integers(3))])
    return image


def sky(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return a sky with clouds, and in 60% of the images distant hills and tree tops."""
    top, low = [
        ((54, 118, 206), (168, 210, 242)),
        ((70, 140, 220), (206, 228, 240)),
        ((88, 104, 176), (246, 196, 170)),
    ][int(rng.integers(3))]
    image = to_bytes(
        clouds(gradient(height, width, [(0, vary(top, rng)), (1, vary(low, rng))]), rng, rng.uniform(0.35, 0.75), 1.3)
    )
    if rng.random() < 0.6:
        base = height * rng.uniform(0.86, 0.95)
        for depth in range(2):
            land(
                image,
                ridge(width, base + depth * 0.05 * height, 0.12 * height, rng, 5),
                vary([(112, 140, 172), (70, 104, 96)][depth], rng),
            )
    return image


def street(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return houses with windows and doors, a pavement, a road and lamps."""
    image = to_bytes(gradient(height, width, [(0, (196, 210, 222)), (1, (216, 220, 222))]))
    kerb, x = height * rng.uniform(0.5, 0.58), -rng.uniform(0, 0.2) * height
    while x < width:
        wide, tall = height * rng.uniform(0.34, 0.6), height * rng.uniform(0.38, 0.56)
        wall = vary(
            [(176, 142, 122), (190, 184, 170), (150, 158, 166), (204, 190, 160), (138, 118, 112)][int(rng.integers(5))],
            rng,
        )
        fill(image, np.array([(x, kerb), (x, kerb - tall), (x + wide, kerb - tall), (x + wide, kerb)]), wall)
        for y in np.arange(kerb - tall, kerb, height * 0.022):
            stroke(image, np.array([(x, y), (x + wide, y)]), scaled(wall, 0.9))
        pane = vary((92, 112, 130), rng)
        for wy in np.arange(kerb - tall + 0.06 * height, kerb - 0.2 * height, 0.14 * height):
            for wx in np.arange(x + 0.05 * height, x + wide - 0.09 * height, 0.12 * height):
                box = np.array([(0, 0), (0.07, 0), (0.07, 0.09), (0, 0.09)]) * height + (wx, wy)
                fill(image, box, scaled(pane, rng.uniform(0.7, 1.5)))
                stroke(image, box, scaled(wall, 1.22), height / 130, closed=True)
        door = x + wide * rng.uniform(0.2, 0.6)
        fill(
            image,
            np.array(
                [
                    (door, kerb),
                    (door, kerb - 0.15 * height),
                    (door + 0.08 * height, kerb - 0.15 * height),
                    (door + 0.08 * height, kerb),
                ]
            ),
            scaled(pane, 0.6),
        )
        x += wide + height * rng.choice([0.0, 0.04])
    lower = kerb + 0.09 * height
    fill(image, np.array([(0, kerb), (width, kerb), (width, lower), (0, lower)]), (172, 168, 162))
    for x in np.arange(0, width, 0.12 * height):
        stroke(image, np.array([(x, kerb), (x - 0.06 * height, lower)]), (148, 144, 140))
    fill(
        image, np.array([(0, lower), (width, lower), (width, height + 2), (0, height + 2)]), vary((104, 104, 108), rng)
    )
    for x in np.arange(rng.uniform(-0.2, 0) * height, width, 0.42 * height):
        y = lower + 0.24 * height
        fill(
            image,
            np.array(
                [
                    (x, y),
                    (x + 0.22 * height, y),
                    (x + 0.21 * height, y + 0.02 * height),
                    (x - 0.01 * height, y + 0.02 * height),
                ]
            ),
            (214, 210, 196),
        )
    for x in rng.uniform(0, width, 3):
        stroke(
            image,
            np.array([(x, kerb + 0.05 * height), (x, kerb - 0.4 * height), (x + 0.07 * height, kerb - 0.42 * height)]),
            (66, 70, 76),
            height / 60,
        )
    grain = fbm(height, width, rng, cells=40, octaves=2)[..., None]
    return to_bytes(image * (0.9 + 0.2 * grain))


def desert(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return dunes with ripples, rocks and cacti under a pale sky."""
    image = to_bytes(
        gradient(height, width, [(0, vary((130, 186, 224), rng)), (0.45, (246, 228, 200)), (1, (246, 228, 200))])
    )
    sand, horizon = vary((226, 184, 120), rng), height * rng.uniform(0.26, 0.36)
    land(image, ridge(width, horizon, 0.2 * height, rng, 4), vary((196, 140, 110), rng))
    for depth in range(3):
        land(
            image,
            ridge(width, horizon + (0.07 + 0.13 * depth) * height, 0.16 * height, rng, 1.5),
            scaled(sand, 0.9 + 0.07 * depth),
        )
    rows = np.arange(height, dtype=np.float32)[:, None]
    warp = fbm(height, width, rng, cells=3, octaves=3, stretch=2)
    near = step(rows + 0 * warp, horizon + 0.1 * height, height)
    ripple = np.sin((rows / height) ** 0.7 * 95 + warp * 26)
    image = to_bytes(image * (1 + near * (0.07 * ripple + 0.14 * (warp - 0.5)))[..., None])
    for y in np.sort(rng.uniform(horizon + 0.15 * height, height, 16)):
        x, size = rng.uniform(0, width), height * (0.01 + 0.045 * (y - horizon) / height) * rng.uniform(0.5, 1.3)
        rock = vary((150, 116, 92), rng)
        fill(image, ellipse(x + size * 0.4, y + size * 0.5, size * 1.3, size * 0.4), scaled(sand, 0.72))
        fill(image, smooth(ellipse(x, y, size, size * 0.7, count=7) + rng.normal(0, size * 0.1, (7, 2)), 3), rock)
        fill(
            image,
            smooth(ellipse(x - 0.2 * size, y - 0.2 * size, size * 0.5, size * 0.3, count=6), 3),
            scaled(rock, 1.25),
        )
    for x in rng.uniform(0, width, 3):
        y, size, green = (
            horizon + rng.uniform(0.1, 0.3) * height,
            height * rng.uniform(0.1, 0.2),
            vary((92, 128, 84), rng),
        )
        for points in (
            [(0, 0), (0, -1)],
            [(0, -0.4), (0.3, -0.4), (0.3, -0.75)],
            [(0, -0.3), (-0.28, -0.3), (-0.28, -0.6)],
        ):
            stroke(image, np.array(points) * size + (x, y), green, size * 0.14)
    return image


def room(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return a wall with wallpaper, windows, bookshelves and framed paintings, and a floor of planks."""
    wall = vary([(206, 196, 176), (168, 190, 186), (214, 186, 170), (180, 178, 200)][int(rng.integers(4))], rng)
    image = to_bytes(flat(height, width, wall))
    for x in np.arange(0, width, 0.09 * height):
        fill(
            image,
            np.array([(x, 0), (x + 0.04 * height, 0), (x + 0.04 * height, height), (x, height)]),
            scaled(wall, 0.94),
        )
        for y in np.arange(0.04 * height, height, 0.09 * height):
            fill(image, ellipse(x + 0.065 * height, y, 0.008 * height, 0.014 * height, count=8), scaled(wall, 0.84))
    floor = height * rng.uniform(0.58, 0.66)
    x = rng.uniform(0, 0.3) * height
    while x < width:
        wide, tall, y = (
            height * rng.uniform(0.16, 0.3),
            height * rng.uniform(0.16, 0.26),
            height * rng.uniform(0.08, 0.2),
        )
        box = np.array([(x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall)])
        if rng.random() < 0.35:  # a window
            fill(image, box, (196, 222, 240))
            stroke(image, np.array([(x + wide / 2, y), (x + wide / 2, y + tall)]), (246, 244, 240), height / 70)
        elif rng.random() < 0.5:  # a shelf with books
            for bx in np.arange(x, x + wide, height * 0.022):
                up = tall * rng.uniform(0.4, 0.7)
                fill(
                    image,
                    np.array(
                        [
                            (bx, y + tall),
                            (bx, y + tall - up),
                            (bx + 0.018 * height, y + tall - up),
                            (bx + 0.018 * height, y + tall),
                        ]
                    ),
                    vary([(150, 70, 64), (84, 110, 140), (176, 150, 90), (92, 124, 96)][int(rng.integers(4))], rng),
                )
        else:
            fill(image, box, vary((190, 206, 200), rng))
            land(
                image[int(y) : int(y + tall), int(x) : int(x + wide)],
                ridge(max(20, int(wide)), tall * 0.6, tall * 0.4, rng),
                vary((104, 136, 110), rng),
            )
        stroke(image, box, (112, 76, 48), height / 60, closed=True)
        x += wide + height * rng.uniform(0.08, 0.3)
    plank = vary((168, 116, 70), rng)
    for y0, y1 in pairwise(floor + np.array([0, 0.07, 0.16, 0.27, 0.4, 0.6, 0.9]) * height):
        edges = np.concatenate([[0], np.sort(rng.uniform(0, width, 3)), [width]])
        for left, right in pairwise(edges):
            fill(
                image,
                np.array([(left, y0), (right, y0), (right, y1), (left, y1)]),
                scaled(plank, rng.uniform(0.86, 1.08)),
            )
            stroke(image, np.array([(right, y0), (right, y1)]), scaled(plank, 0.6))
        stroke(image, np.array([(0, y0), (width, y0)]), scaled(plank, 0.62))
    fill(
        image,
        np.array([(0, floor - 0.03 * height), (width, floor - 0.03 * height), (width, floor), (0, floor)]),
        (236, 228, 214),
    )
    grain = fbm(height, width, rng, cells=24, octaves=2, stretch=8)[..., None]
    return to_bytes(image * (0.9 + 0.2 * grain))
