"""Shapes of the bird, the monkey, the person and the fish, each a list of jointed parts.

Not part of the paper.

Units: a body is about 1 long and faces +x; y points down. The generator varies coat and proportions.
"""

from collections.abc import Sequence

import numpy as np

from previts.demo.cast.creatures import WHITE, Coat, darker, eye, pick, pinkish
from previts.demo.cast.puppets import Part
from previts.demo.scenery.textures import Colour, Detail, Points, ellipse, limb, smooth, vary


def bird(rng: np.random.Generator) -> list[Part]:
    """Return a bird in flight with beating wings."""
    coat = pick(
        rng,
        [
            Coat((240, 196, 40), (252, 232, 130), (40, 36, 34), "feathers"),
            Coat((204, 44, 44), (236, 120, 96), (60, 24, 28), "feathers"),
            Coat((46, 44, 52), (110, 104, 110), (232, 120, 30), "feathers"),
            Coat((240, 126, 60), (252, 226, 200), (90, 50, 36), "feathers"),
        ],
    )
    colours = (coat.back, coat.belly, coat.mark)
    body = smooth(
        [
            (-0.42, -0.02),
            (-0.2, -0.14),
            (0.1, -0.2),
            (0.34, -0.16),
            (0.44, 0.0),
            (0.32, 0.15),
            (0.02, 0.19),
            (-0.24, 0.1),
        ]
    )
    wing = smooth(
        [
            (-0.1, 0),
            (-0.2, -0.2),
            (-0.4, -0.46),
            (-0.26, -0.48),
            (-0.1, -0.44),
            (0.06, -0.3),
            (0.14, -0.1),
            (0.12, 0.03),
        ]
    )
    edge = [Detail(smooth([(-0.2, -0.3), (-0.4, -0.47), (-0.24, -0.5), (-0.06, -0.42)]), coat.mark)]
    tail = smooth([(0.05, -0.05), (-0.3, -0.12), (-0.36, -0.02), (-0.3, 0.04), (-0.34, 0.12), (0.05, 0.05)], 3)
    beak = smooth([(0, -0.05), (0.16, 0.0), (0.02, 0.05)], 4)
    far = darker(colours)
    return [
        Part("far-wing", wing, far, "feathers", "body", (0.12, -0.08), 0.25, (0.3, 1, 0.0), flap=0.75, details=edge),
        Part("tail", tail, (coat.mark, coat.back), "feathers", "body", (-0.36, 0.0), 0.0, (0.12, 1, 0.3)),
        Part(
            "leg", limb(0.16, 0.03, 0.02, 0.04), ((230, 150, 50),), "plain", "body", (-0.02, 0.15), 0.7, (0.15, 1, 0.4)
        ),
        Part("body", body, colours, "feathers"),
        Part("beak", beak, ((240, 160, 40),), "plain", "head", (0.16, 0.0)),
        Part(
            "head",
            ellipse(0.04, 0, 0.17, 0.155),
            colours,
            "feathers",
            "body",
            (0.38, -0.14),
            0.0,
            (0.06, 1, 0.5),
            details=eye(0.1, -0.03, 0.034),
        ),
        Part("wing", wing, colours, "feathers", "body", (0.06, -0.04), -0.1, (0.3, 1, 0.0), flap=0.75, details=edge),
    ]


def _upright(
    rng: np.random.Generator,
    coat: Coat,
    head: Sequence[Part],
    limbs: tuple[Colour, Colour],
    *,
    arm: float,
    leg: float,
    width: float,
) -> list[Part]:
    """Return an upright figure; `limbs` are the colours of arms and legs, `arm` and `leg` their lengths."""
    arms, legs = limbs
    torso = smooth(
        [(-0.15, -0.26), (0.0, -0.32), (0.15, -0.26), (0.2, 0.0), (0.18, 0.22), (0.0, 0.29), (-0.18, 0.22), (-0.2, 0.0)]
    )
    parts: dict[str, list[Part]] = {}
    for name, x, phase, far in (
        ("far-arm", 0.15, 0.0, True),
        ("arm", -0.15, 0.5, False),
        ("far-leg", 0.09, 0.5, True),
        ("leg", -0.09, 0.0, False),
    ):
        is_arm = name.endswith("arm")
        colour = arms if is_arm else legs
        shown = darker([colour], 0.78)[0] if far else colour
        length, joint = (arm / 2, (x, -0.22)) if is_arm else (leg / 2, (x, 0.2))
        hand = coat.belly if is_arm else shown
        parts[name] = [
            Part(
                name + "-lower",
                limb(length, width * 0.9, width * 0.7, 0.0 if is_arm else 0.09),
                (shown, hand),
                "fur",
                name,
                (0, length * 0.95),
                -0.5 if is_arm else 0.15,
                (0.35, 1, phase + 0.15),
            ),
            Part(
                name,
                limb(length, width * 1.1, width * 0.9),
                (shown, shown),
                "fur",
                "body",
                joint,
                -0.5 * np.sign(x) if is_arm else 0.0,
                (0.6 if is_arm else 0.45, 1, phase),
            ),
        ]
    body = Part("body", torso, (coat.back, coat.mark), coat.texture, swing=(0.05, 1, 0.1))
    return [*parts["far-arm"], *parts["far-leg"], body, *parts["leg"], *head, *parts["arm"]]


def monkey(rng: np.random.Generator) -> list[Part]:
    """Return a monkey: long arms, bare face, round ears, curling tail."""
    coat = pick(
        rng,
        [
            Coat((196, 92, 38), (240, 196, 156), (226, 140, 76), "fur"),
            Coat((142, 98, 62), (238, 200, 168), (206, 176, 136), "fur"),
            Coat((206, 186, 150), (232, 160, 140), (240, 230, 206), "fur"),
        ],
    )
    face = [
        Detail(
            smooth([(-0.12, -0.06), (0.0, -0.12), (0.12, -0.06), (0.15, 0.08), (0.0, 0.18), (-0.15, 0.08)]), coat.belly
        ),
        *eye(-0.06, -0.03, 0.033),
        *eye(0.06, -0.03, 0.033),
        Detail(np.array([(-0.07, 0.1), (0.0, 0.125), (0.07, 0.1)]), (120, 50, 50), 0.016),
        Detail(ellipse(0, 0.045, 0.03, 0.015), darker([coat.belly], 0.6)[0]),
    ]
    ears = [
        Part(
            name,
            ellipse(0, 0, 0.075, 0.08),
            (coat.back,),
            "fur",
            "head",
            (x, -0.01),
            details=[Detail(ellipse(0, 0, 0.042, 0.046), coat.belly)],
        )
        for name, x in (("left-ear", -0.2), ("right-ear", 0.2))
    ]
    head = [
        *ears,
        Part(
            "head",
            ellipse(0, 0, 0.2, 0.2),
            (coat.back, coat.back),
            "fur",
            "body",
            (0, -0.42),
            0.0,
            (0.14, 1, 0.2),
            details=face,
        ),
    ]
    tail = [
        Part(
            f"tail{k}",
            limb(0.2, 0.065 - 0.01 * k, 0.055 - 0.01 * k),
            (coat.back,),
            "fur",
            "body" if k == 0 else f"tail{k - 1}",
            (-0.1, 0.2) if k == 0 else (0, 0.19),
            (1.2, 0.6, 0.8, 0.9)[k],
            (0.16, 1, 0.12 * k),
        )
        for k in range(4)
    ]
    return [*tail, *_upright(rng, coat, head, (coat.back, coat.back), arm=rng.uniform(0.6, 0.72), leg=0.44, width=0.1)]


def person(rng: np.random.Generator) -> list[Part]:
    """Return a person in coloured clothes."""
    skin = vary([(236, 190, 156), (196, 140, 100), (120, 78, 54)][int(rng.integers(3))], rng)
    hair = vary([(40, 28, 22), (120, 72, 30), (214, 172, 90)][int(rng.integers(3))], rng)
    shirt = vary([(214, 50, 52), (40, 96, 200), (246, 196, 50), (240, 240, 240)][int(rng.integers(4))], rng)
    trousers = vary([(44, 52, 92), (70, 66, 62), (150, 120, 84)][int(rng.integers(3))], rng)
    cap: Points = smooth(
        [(-0.16, 0.0), (-0.15, -0.14), (0.0, -0.2), (0.15, -0.14), (0.16, 0.0), (0.08, -0.08), (-0.08, -0.08)]
    )
    face = [
        Detail(cap, hair),
        *eye(-0.05, -0.01, 0.026),
        *eye(0.06, -0.01, 0.026),
        Detail(np.array([(-0.04, 0.08), (0.01, 0.095), (0.06, 0.08)]), (150, 60, 60), 0.016),
    ]
    head = [
        Part("head", ellipse(0, 0, 0.15, 0.17), (skin,), "plain", "body", (0, -0.44), 0.0, (0.08, 1, 0.2), details=face)
    ]
    return _upright(
        rng,
        Coat(shirt, skin, shirt, "bands" if rng.random() < 0.4 else "plain"),
        head,
        (shirt, trousers),
        arm=0.52,
        leg=0.62,
        width=0.115,
    )


def _fish(coat: Coat, deep: float, details: Sequence[Detail]) -> list[Part]:
    """Return a fish; `deep` scales its height."""
    colours, fin = (coat.back, coat.belly, coat.mark), pinkish(coat.back) if coat.texture == "scales" else coat.mark
    front = smooth(
        [
            (-0.22, -0.2 * deep),
            (0.1, -0.27 * deep),
            (0.36, -0.17 * deep),
            (0.5, 0.0),
            (0.38, 0.14 * deep),
            (0.1, 0.26 * deep),
            (-0.22, 0.2 * deep),
        ]
    )
    rear = smooth(
        [
            (0.08, -0.215 * deep),
            (-0.16, -0.16 * deep),
            (-0.32, -0.06),
            (-0.32, 0.06),
            (-0.16, 0.16 * deep),
            (0.08, 0.215 * deep),
        ]
    )
    tail = smooth(
        [(0.04, -0.05), (-0.18, -0.24), (-0.34, -0.3), (-0.26, 0.0), (-0.34, 0.3), (-0.18, 0.24), (0.04, 0.05)]
    )
    back = smooth([(-0.2, 0.06), (-0.24, -0.12), (-0.06, -0.2), (0.14, -0.12), (0.22, 0.06)])
    rays = [
        Detail(np.array([(0.0, 0.25 * k * 0.1), (-0.3, 0.27 * k)]), darker([fin], 0.8)[0], 0.012)
        for k in (-0.8, -0.4, 0, 0.4, 0.8)
    ]
    return [
        Part("tail", tail, (fin,), "plain", "rear", (-0.28, 0), 0.0, (0.5, 1, 0.75), details=rays),
        Part("dorsal", back, (fin,), "plain", "body", (0.02, -0.2 * deep), 0.0, (0.06, 1, 0.3)),
        Part("pelvic", limb(0.17, 0.11, 0.05), (fin,), "plain", "body", (0.06, 0.19 * deep), 0.6, (0.2, 1, 0.1)),
        Part("rear", rear, colours, coat.texture, "body", (-0.14, 0), 0.0, (0.26, 1, 0.9)),
        Part(
            "body",
            front,
            colours,
            coat.texture,
            swing=(0.07, 1, 0.4),
            details=[
                *details,
                *eye(0.35, -0.05 * deep, 0.042),
                Detail(
                    smooth([(0.24, -0.12 * deep), (0.2, 0.0), (0.24, 0.13 * deep), (0.23, 0.0)], 4),
                    darker([coat.back], 0.6)[0],
                ),
            ],
        ),
        Part("pectoral", limb(0.18, 0.09, 0.12), (fin,), "plain", "body", (0.16, 0.05), 1.0, (0.5, 2, 0.0)),
    ]


def goldfish(rng: np.random.Generator) -> list[Part]:
    """Return a goldfish: orange scales, a swaying tail."""
    coat = pick(
        rng,
        [
            Coat((248, 122, 24), (255, 206, 90), (255, 226, 150), "scales"),
            Coat((226, 48, 40), (250, 170, 130), (252, 232, 220), "scales"),
            Coat((250, 200, 50), (255, 240, 170), (250, 150, 40), "scales"),
        ],
    )
    return _fish(coat, rng.uniform(0.95, 1.2), ())


def clownfish(rng: np.random.Generator) -> list[Part]:
    """Return a clownfish: white bands on orange."""
    coat = pick(rng, [Coat((244, 110, 24), (252, 150, 50), (250, 246, 240), "plain")])
    bands = [
        Detail(
            smooth(
                [(x - 0.05, -0.3), (x + 0.05, -0.3), (x + 0.02, 0.0), (x + 0.05, 0.3), (x - 0.05, 0.3), (x - 0.08, 0.0)]
            ),
            WHITE,
        )
        for x in (0.2, -0.12)
    ]
    return _fish(coat, rng.uniform(1.0, 1.15), bands)


def tang(rng: np.random.Generator) -> list[Part]:
    """Return a tall yellow or violet reef fish."""
    coat = pick(
        rng,
        [
            Coat((250, 214, 30), (255, 236, 110), (240, 160, 20), "scales"),
            Coat((150, 60, 190), (226, 130, 220), (250, 210, 60), "bands"),
        ],
    )
    return _fish(coat, rng.uniform(1.35, 1.55), ())
