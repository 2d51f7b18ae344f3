"""Dense backgrounds: forest, leaves, jungle and sea floor.

Not part of the paper.
"""

import numpy as np

from previts.demo.scenery.elements import clouds, flat, gradient, land, leaf, ridge, scaled, to_bytes
from previts.demo.scenery.textures import Image, ellipse, fbm, fill, step, stroke, vary


def forest(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return rows of trees in mist over a dark ground."""
    mist = vary((176, 198, 200), rng)
    image = to_bytes(clouds(gradient(height, width, [(0, scaled(mist, 0.85)), (0.6, mist), (1, mist)]), rng, 0.2))
    floor = height * rng.uniform(0.55, 0.64)
    for depth in range(4):
        tone, near = (0.75 - 0.17 * depth), 0.4 + 0.22 * depth
        for x in rng.uniform(0, width, 11 - 2 * depth):
            wide, base = height * 0.045 * near * rng.uniform(0.7, 1.4), floor + 0.05 * depth * height
            bark = scaled((int(70 + 110 * tone), int(80 + 110 * tone), int(84 + 110 * tone)), rng.uniform(0.9, 1.05))
            fill(
                image, np.array([(x - wide, base), (x - wide * 0.6, -5), (x + wide * 0.6, -5), (x + wide, base)]), bark
            )
            for _ in range(4):
                y, reach = rng.uniform(-0.05, 0.4) * height, height * rng.uniform(0.06, 0.16)
                needle = vary((40 + 100 * tone, 84 + 80 * tone, 76 + 90 * tone), rng)
                fill(
                    image,
                    np.array(
                        [
                            (x, y - reach * 0.9),
                            (x + reach, y + reach * 0.3),
                            (x, y + reach * 0.1),
                            (x - reach, y + reach * 0.3),
                        ]
                    ),
                    needle,
                )
    land(image, ridge(width, floor + 0.13 * height, 0.06 * height, rng), vary((66, 88, 66), rng))
    patch = fbm(height, width, rng, cells=9, octaves=3, stretch=2)[..., None]
    below = step(
        np.arange(height, dtype=np.float32)[:, None] + np.zeros((1, width), np.float32),
        floor + 0.1 * height,
        floor + 0.2 * height,
    )[..., None]
    image = to_bytes(image * (1 + 0.5 * below * (patch - 0.5)))
    for _ in range(42):
        at = (rng.uniform(0, width), floor + height * rng.uniform(0.14, 0.5))
        if rng.random() < 0.5:
            for turn in (-2.4, -1.9, -1.4, -0.9):
                leaf(image, at, height * rng.uniform(0.05, 0.09), turn, vary((74, 116, 76), rng), 0.12)
        else:
            leaf(image, at, height * rng.uniform(0.02, 0.035), rng.uniform(0, 6.3), vary((120, 108, 78), rng))
    return image


def leaves(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return leaves and blossoms from a short distance."""
    image = to_bytes(
        flat(height, width, vary((58, 98, 50), rng)) * (0.7 + 0.5 * fbm(height, width, rng, cells=4))[..., None]
    )
    tint = vary((106, 168, 84), rng)
    for layer in range(3):
        for _ in range(46):
            at = (rng.uniform(-0.05, 1.05) * width, rng.uniform(-0.05, 1.05) * height)
            leaf(
                image,
                at,
                height * rng.uniform(0.16, 0.26) * (1.1 - 0.1 * layer),
                rng.uniform(0, 6.3),
                scaled(vary(tint, rng, 24), 0.62 + 0.2 * layer),
            )
    bloom = vary([(236, 150, 196), (250, 250, 244), (180, 150, 230)][int(rng.integers(3))], rng)
    for _ in range(int(rng.integers(4, 9))):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), height * rng.uniform(0.025, 0.05)
        for turn in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 1):
            fill(
                image,
                ellipse(x + size * np.cos(turn), y + size * np.sin(turn), size, size * 0.62, turn, 14),
                scaled(bloom, rng.uniform(0.9, 1.05)),
            )
        fill(image, ellipse(x, y, size * 0.45, size * 0.45, count=12), (240, 200, 70))
    return image


def jungle(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return trunks, vines and large fronds in green shade with shafts of light."""
    shade = flat(height, width, vary((30, 70, 52), rng)) * (0.6 + 0.9 * fbm(height, width, rng, cells=3))[..., None]
    image = to_bytes(shade)
    for _ in range(38):
        at = (rng.uniform(0, width), rng.uniform(0, height))
        leaf(
            image,
            at,
            height * rng.uniform(0.16, 0.3),
            rng.uniform(0, 6.3),
            scaled(vary((46, 110, 72), rng, 24), rng.uniform(0.5, 0.9)),
        )
    for x in rng.uniform(0, width, 4):
        wide, bark = height * rng.uniform(0.05, 0.09), vary((84, 72, 58), rng)
        fill(
            image,
            np.array([(x - wide, height + 4), (x - wide * 0.7, -4), (x + wide * 0.7, -4), (x + wide, height + 4)]),
            bark,
        )
        for _ in range(26):
            at = (x + rng.uniform(-0.8, 0.7) * wide, rng.uniform(0, height))
            stroke(
                image,
                np.array([at, (at[0] + 0.1 * wide, at[1] + rng.uniform(0.04, 0.1) * height)]),
                scaled(bark, rng.choice([0.65, 1.3])),
                height / 140,
            )
    for _ in range(9):
        root, lean = np.array([rng.uniform(0, width), height * rng.choice([-0.05, 1.05])]), rng.uniform(-0.5, 0.5)
        down = 1 if root[1] < 0 else -1
        for k in range(9):
            stem = root + np.array([lean * k, down * k]) * 0.045 * height
            for side in (-1, 1):
                leaf(
                    image,
                    (stem[0], stem[1]),
                    height * 0.14 * (1 - k / 11),
                    down * np.pi / 2 + side * 0.9,
                    scaled(vary((66, 146, 80), rng), rng.uniform(0.8, 1.1)),
                    0.16,
                )
    for _ in range(3):
        x = rng.uniform(0, width)
        stroke(
            image,
            np.stack([x + 0.02 * height * np.sin(np.arange(12)), np.linspace(-5, height * rng.uniform(0.5, 1), 12)], 1),
            vary((74, 110, 50), rng),
            height / 80,
        )
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    shaft = np.clip(np.sin((x + 0.6 * y) / height * 5 + rng.uniform(0, 6)), 0, 1) ** 3 * (1 - 0.7 * y / height)
    return to_bytes(image * (1 + 0.35 * shaft)[..., None] + (18 * shaft)[..., None])


def water(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return a sea floor with corals, seaweed, bubbles and caustics."""
    top, deep = vary((70, 176, 206), rng), vary((12, 66, 112), rng)
    image = gradient(height, width, [(0, top), (0.75, deep), (1, deep)])
    warp = fbm(height, width, rng, cells=3, octaves=3)
    caustic = np.abs(np.sin(fbm(height, width, rng, cells=5, octaves=2, stretch=1.6) * 22 + warp * 6))
    image = image * (1 + 0.22 * (1 - step(caustic, 0.05, 0.45)) * (0.4 + 0.6 * warp))[..., None]
    pixels = to_bytes(image)
    land(pixels, ridge(width, height * 0.84, 0.14 * height, rng), vary((150, 156, 130), rng))
    for _ in range(13):
        x, y, size = rng.uniform(0, width), height * rng.uniform(0.8, 1.0), height * rng.uniform(0.03, 0.08)
        coral = vary([(150, 96, 130), (96, 130, 140), (176, 140, 110), (70, 110, 96)][int(rng.integers(4))], rng)
        for _ in range(9):
            fill(
                pixels,
                ellipse(x + rng.normal(0, size * 0.6), y - rng.uniform(0, size), size * 0.36, size * 0.36, count=14),
                scaled(coral, rng.uniform(0.75, 1.2)),
            )
    for x in rng.uniform(0, width, 16):
        tall, weed = height * rng.uniform(0.14, 0.4), scaled(vary((42, 110, 84), rng), rng.uniform(0.7, 1.1))
        up = np.linspace(0, 1, 14)
        stroke(
            pixels,
            np.stack([x + 0.025 * height * np.sin(up * 9 + x), height * 0.97 - tall * up], 1),
            weed,
            height / 55,
        )
    for _ in range(34):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), height * rng.uniform(0.004, 0.014)
        stroke(pixels, ellipse(x, y, size, size, count=14), (176, 222, 236), 1, closed=True)
    return pixels
