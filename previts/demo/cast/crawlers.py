"""Shapes of the reptiles and insects, each a list of jointed parts.

Not part of the paper.
"""

import numpy as np

from previts.demo.cast.creatures import BLACK, WHITE, Coat, darker, eye, pick
from previts.demo.cast.puppets import Part
from previts.demo.scenery.textures import Colour, Detail, Points, ellipse, limb, smooth, vary


def lizard(rng: np.random.Generator) -> list[Part]:
    """Return a lizard from above: a winding body of segments, splayed legs."""
    coat = pick(
        rng,
        [
            Coat((60, 150, 60), (90, 180, 80), (24, 80, 50), "scales"),
            Coat((32, 128, 116), (70, 170, 150), (240, 220, 90), "spots"),
            Coat((92, 70, 110), (140, 110, 150), (40, 24, 56), "bands"),
        ],
    )
    colours = (coat.back, coat.belly, coat.mark)

    def segment(length: float, start: float, end: float) -> Points:
        return smooth(
            [
                (0.04, -start * 0.42),
                (0.04, start * 0.42),
                (-length * 0.5, (start + end) * 0.28),
                (-length, end * 0.5),
                (-length, -end * 0.5),
                (-length * 0.5, -(start + end) * 0.28),
            ]
        )

    legs = []
    for name, parent, x, side, phase in (
        ("a", "body", -0.06, 1, 0.0),
        ("b", "body", -0.06, -1, 0.5),
        ("c", "hip", -0.1, 1, 0.5),
        ("d", "hip", -0.1, -1, 0.0),
    ):
        legs += [
            Part(
                "leg-" + name,
                limb(0.19, 0.1, 0.07),
                colours,
                "scales",
                parent,
                (x, 0.09 * side),
                -0.5 if side > 0 else np.pi + 0.5,
                (0.45, 1, phase),
            ),
            Part(
                "foot-" + name,
                limb(0.15, 0.07, 0.06, 0.04 * side),
                colours,
                "scales",
                "leg-" + name,
                (0, 0.18),
                0.9 * side,
                (0.3, 1, phase + 0.2),
            ),
        ]
    skull = smooth([(-0.06, -0.09), (0.1, -0.13), (0.26, -0.07), (0.3, 0.0), (0.26, 0.07), (0.1, 0.13), (-0.06, 0.09)])
    face = [
        *eye(0.15, -0.09, 0.032, BLACK, (240, 210, 60)),
        *eye(0.15, 0.09, 0.032, BLACK, (240, 210, 60)),
        Detail(ellipse(0.27, 0.02, 0.01, 0.008), BLACK),
    ]
    tail = [
        Part(
            f"tail{k}",
            segment(0.2, 0.17 - 0.04 * k, 0.13 - 0.04 * k),
            colours,
            coat.texture,
            "hip" if k == 0 else f"tail{k - 1}",
            (-0.27 if k == 0 else -0.19, 0),
            0.0,
            (0.38, 1, 0.55 + 0.12 * k),
        )
        for k in range(4)
    ]
    return [
        *reversed(tail),
        *legs,
        Part("hip", segment(0.3, 0.27, 0.17), colours, coat.texture, "body", (-0.2, 0), 0.0, (0.3, 1, 0.4)),
        Part("body", segment(0.26, 0.2, 0.27), colours, coat.texture, joint=(0.3, 0.0), swing=(0.16, 1, 0.2)),
        Part("head", skull, colours, "scales", "body", (0.06, 0), 0.0, (0.3, 1, 0.0), details=face),
    ]


def turtle(rng: np.random.Generator) -> list[Part]:
    """Return a turtle from the side: patterned shell, four legs."""
    shell, skin = vary((120, 84, 40), rng), vary((96, 156, 70), rng)
    dome = smooth(
        [
            (-0.46, 0.08),
            (-0.4, -0.12),
            (-0.2, -0.3),
            (0.06, -0.34),
            (0.3, -0.22),
            (0.43, -0.02),
            (0.45, 0.09),
            (0.0, 0.13),
        ]
    )
    plates = [
        Detail(ellipse(x, y, 0.105, 0.09), darker([shell], f)[0])
        for x, y, f in (
            (-0.28, -0.08, 1.3),
            (-0.06, -0.2, 1.4),
            (0.19, -0.15, 1.3),
            (-0.06, 0.0, 1.2),
            (0.17, 0.03, 1.15),
            (0.34, -0.02, 1.2),
        )
    ]
    rim = Detail(np.array([(-0.46, 0.09), (0.0, 0.12), (0.45, 0.09)]), (200, 176, 96), 0.04)
    legs = [
        Part(n, limb(0.2, 0.14, 0.12, 0.04), (darker([skin], f)[0],), "scales", "body", (x, 0.06), 0.1, (0.5, 1, p))
        for n, x, p, f in (
            ("far-hind", -0.22, 0.5, 0.7),
            ("far-fore", 0.3, 0.0, 0.7),
            ("hind", -0.3, 0.0, 1.0),
            ("fore", 0.24, 0.5, 1.0),
        )
    ]
    skull = smooth(
        [(-0.06, -0.06), (0.06, -0.13), (0.2, -0.12), (0.27, -0.03), (0.22, 0.05), (0.05, 0.07), (-0.06, 0.06)]
    )
    head = Part(
        "head",
        skull,
        (skin, darker([skin], 1.25)[0]),
        "scales",
        "body",
        (0.42, -0.02),
        -0.25,
        (0.14, 1, 0.1),
        details=eye(0.16, -0.05, 0.028),
    )
    tail = Part("tail", limb(0.14, 0.07, 0.02), (skin,), "scales", "body", (-0.43, 0.06), 1.3, (0.3, 2, 0.0))
    return [
        tail,
        *legs[:2],
        head,
        Part("body", dome, (shell, darker([shell], 0.8)[0]), "scales", details=[*plates, rim]),
        *legs[2:],
    ]


def _bug_legs(colour: Colour, reach: float) -> list[Part]:
    return [
        Part(
            f"leg{k}{side}",
            limb(reach, 0.05, 0.03, 0.06 * side),
            (colour,),
            "plain",
            "body",
            (x, 0.2 * side),
            (-0.25 - 0.35 * (k - 1)) if side > 0 else np.pi + 0.25 + 0.35 * (k - 1),
            (0.3, 2, 0.33 * k + (0.5 if side > 0 else 0)),
        )
        for k, x in enumerate((-0.22, 0.0, 0.2))
        for side in (1, -1)
    ]


def ladybird(rng: np.random.Generator) -> list[Part]:
    """Return a ladybird from above: coloured wing cases, black dots, six running legs."""
    shell = vary([(214, 30, 24), (240, 130, 20), (236, 190, 30)][int(rng.integers(3))], rng)
    dots = [
        Detail(ellipse(x, y * s, r, r), BLACK)
        for x, y, r in ((0.12, 0.15, 0.07), (-0.1, 0.2, 0.075), (-0.28, 0.1, 0.065))
        for s in (1, -1)
    ]
    line = Detail(np.array([(-0.44, 0), (0.3, 0)]), BLACK, 0.022)
    feelers = [
        Part(
            f"feeler{s}",
            limb(0.2, 0.025, 0.03),
            (BLACK,),
            "plain",
            "head",
            (0.1, 0.06 * s),
            -np.pi / 2 + 0.4 * s,
            (0.2, 2, 0.25 * s),
        )
        for s in (1, -1)
    ]
    head = Part(
        "head",
        ellipse(0.02, 0, 0.14, 0.19),
        ((34, 32, 36),),
        "plain",
        "body",
        (0.34, 0),
        0.0,
        (0.1, 1, 0.0),
        details=[Detail(ellipse(0.06, 0.11, 0.04, 0.05), WHITE), Detail(ellipse(0.06, -0.11, 0.04, 0.05), WHITE)],
    )
    return [
        *_bug_legs((40, 34, 34), 0.26),
        *feelers,
        head,
        Part("body", ellipse(-0.06, 0, 0.4, 0.345), (shell, shell), "metal", details=[line, *dots]),
    ]


def butterfly(rng: np.random.Generator) -> list[Part]:
    """Return a butterfly from above with folding wings."""
    wing, edge, spot = (
        vary(c, rng)
        for c in [
            ((240, 130, 20), (34, 26, 24), (252, 240, 220)),
            ((60, 120, 230), (24, 26, 50), (230, 240, 255)),
            ((246, 220, 80), (60, 44, 24), (230, 80, 40)),
            ((210, 60, 120), (50, 20, 40), (255, 220, 120)),
        ][int(rng.integers(4))]
    )
    parts = []
    for side in (1, -1):
        fore = smooth(
            np.array([(0.0, 0.0), (0.18, 0.2), (0.34, 0.5), (0.2, 0.62), (-0.02, 0.5), (-0.1, 0.2)]) * (1, side)
        )
        hind = smooth(
            np.array([(0.02, 0.0), (0.06, 0.24), (-0.08, 0.46), (-0.3, 0.44), (-0.36, 0.22), (-0.18, 0.05)]) * (1, side)
        )
        for name, outline, joint, centre in (
            ("hind", hind, (-0.1, 0.0), (-0.14, 0.26)),
            ("fore", fore, (0.06, 0.0), (0.1, 0.34)),
        ):
            inner = (outline - centre * np.array([1, side])) * 0.74 + np.array(centre) * (1, side)
            marks = [
                Detail(inner, wing),
                Detail(ellipse(centre[0], centre[1] * side, 0.06, 0.07), spot),
                *(
                    Detail(ellipse(0.9 * outline[i, 0], 0.9 * outline[i, 1], 0.022, 0.022), spot)
                    for i in range(8, 26, 4)
                ),
            ]
            parts.append(
                Part(
                    f"{name}{side}",
                    outline,
                    (edge,),
                    "plain",
                    "body",
                    joint,
                    0.0,
                    (0.12 * side, 1, 0.0),
                    flap=0.6,
                    details=marks,
                )
            )
    feelers = [
        Part(
            f"feeler{s}",
            limb(0.22, 0.035, 0.045),
            (edge,),
            "plain",
            "body",
            (0.28, 0.02 * s),
            -np.pi / 2 + 0.35 * s,
            (0.1, 1, 0.2),
        )
        for s in (1, -1)
    ]
    return [
        *parts,
        *feelers,
        Part(
            "body",
            smooth([(-0.36, 0), (-0.1, -0.06), (0.2, -0.065), (0.32, 0), (0.2, 0.065), (-0.1, 0.06)]),
            (edge, edge),
            "fur",
        ),
    ]
