"""Shapes of the vehicles and instruments, each a list of jointed parts.

Not part of the paper.
"""

import numpy as np

from previts.demo.cast.creatures import WHITE, darker
from previts.demo.cast.puppets import Part
from previts.demo.scenery.textures import Detail, ellipse, limb, smooth, vary

GLASS, CHROME = (150.0, 200.0, 224.0), (206.0, 210.0, 214.0)


def _wheel(name: str, x: float, y: float, radius: float) -> Part:
    spokes = [
        Detail(np.array([(0, 0), (0.62 * radius * np.cos(a), 0.62 * radius * np.sin(a))]), (90, 92, 98), 0.2 * radius)
        for a in np.arange(5) * 2 * np.pi / 5
    ]
    details = [
        Detail(ellipse(0, 0, 0.62 * radius, 0.62 * radius), CHROME),
        *spokes,
        Detail(ellipse(0, 0, 0.16 * radius, 0.16 * radius), WHITE),
    ]
    return Part(
        name, ellipse(0, 0, radius, radius), ((40, 40, 44),), "plain", "body", (x, y), spin=0.5, details=details
    )


def car(rng: np.random.Generator) -> list[Part]:
    """Return a car with turning wheels."""
    paint = vary(
        [(214, 32, 38), (246, 190, 30), (30, 110, 216), (240, 240, 242), (30, 160, 90), (236, 110, 30)][
            int(rng.integers(6))
        ],
        rng,
    )
    tall, hood = rng.uniform(0.9, 1.25), rng.uniform(-0.03, 0.05)
    body = smooth(
        [
            (-0.56, 0.1),
            (-0.55, -0.06),
            (-0.44, -0.1),
            (-0.3, -0.28 * tall),
            (0.0, -0.31 * tall),
            (0.16, -0.27 * tall),
            (0.3 + hood, -0.09),
            (0.52, -0.05),
            (0.58, 0.06),
            (0.55, 0.14),
            (0.2, 0.17),
            (-0.3, 0.17),
            (-0.52, 0.15),
        ]
    )
    top = -0.25 * tall
    details = [
        Detail(smooth([(-0.36, -0.09), (-0.26, top), (-0.06, top - 0.01), (-0.06, -0.09)], 3), GLASS),
        Detail(smooth([(-0.01, -0.09), (-0.01, top - 0.01), (0.12, top), (0.24 + hood, -0.09)], 3), GLASS),
        Detail(np.array([(-0.04, -0.1), (-0.05, 0.14)]), darker([paint], 0.6)[0], 0.014),
        Detail(np.array([(0.02, 0.0), (0.09, 0.0)]), CHROME, 0.02),
        Detail(np.array([(-0.55, 0.1), (0.56, 0.1)]), darker([paint], 0.7)[0], 0.03),
        Detail(ellipse(0.53, 0.0, 0.035, 0.04), (255, 246, 190)),
        Detail(ellipse(-0.54, 0.0, 0.025, 0.04), (250, 60, 50)),
    ]
    return [
        Part("body", body, (paint, paint), "metal", details=details),
        _wheel("rear", -0.34, 0.16, 0.125),
        _wheel("front", 0.34, 0.16, 0.125),
    ]


def bus(rng: np.random.Generator) -> list[Part]:
    """Return a bus or a van with a row of windows."""
    paint, stripe = (
        vary(colour, rng)
        for colour in [
            ((238, 172, 30), (40, 40, 44)),
            ((200, 34, 44), (240, 236, 226)),
            ((240, 240, 236), (30, 120, 190)),
        ][int(rng.integers(3))]
    )
    body = smooth(
        [
            (-0.6, 0.16),
            (-0.61, -0.3),
            (-0.56, -0.34),
            (0.5, -0.34),
            (0.57, -0.28),
            (0.61, 0.0),
            (0.6, 0.16),
            (0.2, 0.18),
            (-0.3, 0.18),
        ],
        8,
    )
    panes = [
        Detail(np.array([(x, -0.26), (x + 0.15, -0.26), (x + 0.15, -0.07), (x, -0.07)]), GLASS)
        for x in (-0.55, -0.36, -0.17, 0.02, 0.21)
    ]
    details = [
        *panes,
        Detail(np.array([(0.42, -0.26), (0.54, -0.26), (0.58, -0.04), (0.42, -0.04)]), GLASS),
        Detail(np.array([(-0.6, 0.02), (0.6, 0.02)]), stripe, 0.045),
        Detail(ellipse(0.57, 0.1, 0.03, 0.035), (255, 246, 190)),
    ]
    return [
        Part("body", body, (paint, paint), "metal", details=details),
        _wheel("rear", -0.36, 0.18, 0.12),
        _wheel("front", 0.36, 0.18, 0.12),
    ]


def guitar(rng: np.random.Generator) -> list[Part]:
    """Return a guitar: body with a waist, sound hole, long neck."""
    top = vary([(206, 110, 36), (176, 30, 34), (240, 226, 190), (40, 90, 190), (36, 34, 38)][int(rng.integers(5))], rng)
    body = smooth(
        [
            (-0.62, 0.0),
            (-0.56, -0.2),
            (-0.36, -0.25),
            (-0.18, -0.15),
            (-0.02, -0.19),
            (0.08, -0.1),
            (0.09, 0.1),
            (-0.02, 0.19),
            (-0.18, 0.15),
            (-0.36, 0.25),
            (-0.56, 0.2),
        ]
    )
    strings = [
        Detail(np.array([(-0.44, y), (0.9, y * 0.8)]), (236, 226, 200), 0.006) for y in np.linspace(-0.03, 0.03, 4)
    ]
    edge = Detail(np.concatenate([body, body[:1]]), darker([top], 0.55)[0], 0.03)
    face = [
        edge,
        Detail(ellipse(-0.14, 0, 0.088, 0.088), (214, 180, 120)),
        Detail(ellipse(-0.14, 0, 0.07, 0.07), (34, 22, 18)),
        Detail(np.array([(-0.45, -0.08), (-0.45, 0.08)]), (60, 36, 24), 0.035),
        *strings,
    ]
    frets = [Detail(np.array([(x, -0.04), (x, 0.04)]), CHROME, 0.008) for x in np.linspace(0.14, 0.62, 9)]
    neck = np.array([(0.02, -0.042), (0.66, -0.034), (0.66, 0.034), (0.02, 0.042)])
    pegs = [Detail(ellipse(x, y, 0.014, 0.012), CHROME) for x in (0.07, 0.12, 0.17) for y in (-0.04, 0.04)]
    head = Part(
        "head",
        smooth([(0, -0.036), (0.05, -0.07), (0.2, -0.06), (0.22, 0.0), (0.2, 0.06), (0.05, 0.07), (0, 0.036)]),
        ((70, 40, 26),),
        "wood",
        "body",
        (0.65, 0),
        details=pegs,
    )
    return [
        Part("body", body, (top, top), "wood", swing=(0.06, 1, 0.0), details=face),
        Part("neck", neck, ((84, 52, 32),), "wood", "body", details=[*frets, *strings]),
        head,
    ]


def drum(rng: np.random.Generator) -> list[Part]:
    """Return a drum with two moving sticks."""
    shell = vary([(200, 30, 40), (30, 90, 190), (30, 150, 90)][int(rng.integers(3))], rng)
    zigzag = np.array([(x, -0.16 if k % 2 else 0.26) for k, x in enumerate(np.linspace(-0.4, 0.4, 9))])
    body = smooth([(-0.42, -0.2), (0.0, -0.27), (0.42, -0.2), (0.4, 0.28), (0.0, 0.38), (-0.4, 0.28)], 5)
    details = [
        Detail(zigzag, (246, 230, 190), 0.022),
        Detail(np.array([(-0.42, -0.14), (0, -0.07), (0.42, -0.14)]), (240, 200, 80), 0.05),
        Detail(np.array([(-0.4, 0.25), (0, 0.33), (0.4, 0.25)]), (240, 200, 80), 0.05),
    ]
    skin = Part("skin", ellipse(0, 0, 0.42, 0.1), ((246, 240, 226),), "plain", "body", (0, -0.2))
    sticks = [
        Part(
            f"stick{s}",
            limb(0.46, 0.035, 0.06),
            ((214, 170, 110),),
            "wood",
            "body",
            (0.34 * s, -0.6),
            0.62 * s,
            (0.3, 2, 0.25 * s),
        )
        for s in (1, -1)
    ]
    return [Part("body", body, (shell, shell), "metal", details=details), skin, *sticks]
