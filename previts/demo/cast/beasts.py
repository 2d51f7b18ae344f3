"""Shapes of the four-legged animals, each a list of jointed parts.

Not part of the paper.

Units: a body is about 1 long and faces +x; y points down. The generator varies coat and proportions.
"""

from collections.abc import Sequence

import numpy as np

from previts.demo.cast.creatures import BLACK, PINK, WHITE, Coat, darker, eye, pick, pinkish
from previts.demo.cast.puppets import Part
from previts.demo.scenery.textures import Colour, Detail, ellipse, limb, smooth, vary


def _leg(
    name: str, joint: tuple[float, float], coat: Coat, length: float, width: float, phase: float, *, far: bool
) -> list[Part]:
    colours = (coat.back, coat.belly, coat.mark)
    colours = colours if not far else (darker(colours)[0], darker(colours)[1], darker(colours)[2])
    half = length / 2
    return [
        Part(
            name + "-lower",
            limb(half, width * 0.72, width * 0.5, 0.05),
            colours,
            coat.texture,
            name,
            (0, half * 0.96),
            0.12,
            (0.34, 1, phase + 0.22),
        ),
        Part(
            name, limb(half, width * 1.25, width * 0.75), colours, coat.texture, "body", joint, -0.06, (0.46, 1, phase)
        ),
    ]


def quadruped(
    rng: np.random.Generator,
    coat: Coat,
    head: Sequence[Part],
    *,
    leg: float = 0.42,
    thick: float = 0.12,
    girth: float = 1.0,
    tail: Sequence[Part] = (),
    collar: Colour | None = None,
    woolly: bool = False,
) -> list[Part]:
    """Return a walking animal; the parent of `head` and `tail` is "body"."""
    leg, girth = leg * rng.uniform(0.9, 1.12), girth * rng.uniform(0.92, 1.1)
    outline = np.array(
        [
            (-0.5, -0.1),
            (-0.36, -0.22),
            (0, -0.19),
            (0.3, -0.25),
            (0.48, -0.16),
            (0.5, 0.04),
            (0.32, 0.19),
            (0.0, 0.15),
            (-0.25, 0.15),
            (-0.46, 0.1),
        ]
    ) * (1, girth)
    if woolly:
        turn = np.linspace(0, 2 * np.pi, 26, endpoint=False)
        puff = 1 + 0.07 * np.where(np.arange(26) % 2, 1, -1)
        outline = np.stack([0.52 * puff * np.cos(turn), 0.02 + 0.3 * girth * puff * np.sin(turn)], 1)
    colours = (coat.back, coat.belly, coat.mark)
    details = [] if collar is None else [Detail(np.array([(0.41, -0.24), (0.5, -0.02)]), collar, 0.045)]
    hip = 0.1 * girth
    return [
        *_leg("far-hind", (-0.33, hip), coat, leg, thick, 0.5, far=True),
        *_leg("far-fore", (0.36, hip), coat, leg, thick, 0.0, far=True),
        *tail,
        Part("body", smooth(outline), colours, coat.texture, details=details),
        *_leg("hind", (-0.37, hip), coat, leg, thick * 1.1, 0.0, far=False),
        *_leg("fore", (0.32, hip), coat, leg, thick, 0.5, far=False),
        *head,
    ]


def _tail(coat: Coat, length: float, width: float, rest: float, pieces: int, tip: Colour | None = None) -> list[Part]:
    parts = []
    for number in range(pieces):
        colour = tip if tip and number == pieces - 1 else coat.back
        parent = "body" if number == 0 else f"tail{number - 1}"
        joint = (-0.46, -0.12) if number == 0 else (0.0, length / pieces * 0.94)
        start, end = width * (1 - 0.2 * number), width * (0.8 - 0.2 * number)
        parts.append(
            Part(
                f"tail{number}",
                limb(length / pieces, start, end),
                (colour, colour, coat.mark),
                coat.texture,
                parent,
                joint,
                rest if number == 0 else 0.28,
                (0.3, 1 if pieces > 1 else 2, 0.15 * number),
            )
        )
    return parts


def dog(rng: np.random.Generator) -> list[Part]:
    """Return a dog: long muzzle, hanging ears, wagging tail, a collar."""
    coat = pick(
        rng,
        [
            Coat((148, 92, 48), (214, 170, 116), (90, 52, 28), "fur"),
            Coat((236, 226, 208), (250, 246, 238), (120, 66, 34), "patches"),
            Coat((66, 50, 44), (140, 96, 62), (30, 24, 24), "fur"),
            Coat((222, 168, 92), (244, 212, 150), (160, 110, 50), "fur"),
            Coat((238, 236, 232), (250, 250, 250), (34, 32, 34), "patches"),
        ],
    )
    skull = smooth(
        [
            (-0.1, 0.0),
            (-0.07, -0.19),
            (0.06, -0.28),
            (0.19, -0.25),
            (0.25, -0.15),
            (0.41, -0.12),
            (0.44, -0.04),
            (0.36, 0.03),
            (0.2, 0.04),
            (0.1, 0.12),
            (-0.02, 0.14),
        ]
    )
    ear = coat.mark if coat.texture == "patches" else darker([coat.back], 0.7)[0]
    face = [
        *eye(0.19, -0.14, 0.036),
        Detail(ellipse(0.42, -0.09, 0.042, 0.036), BLACK),
        Detail(np.array([(0.43, -0.02), (0.32, 0.0), (0.24, -0.02)]), BLACK, 0.014),
    ]
    head = [
        Part(
            "head",
            skull,
            (coat.back, coat.belly, coat.mark),
            coat.texture,
            "body",
            (0.46, -0.2),
            -0.05,
            (0.09, 1, 0.1),
            details=face,
        ),
        Part(
            "ear",
            limb(rng.uniform(0.16, 0.26), 0.1, 0.13),
            (ear, ear),
            "fur",
            "head",
            (0.03, -0.22),
            0.3,
            (0.2, 2, 0.3),
        ),
    ]
    collar = (vary((210, 40, 50), rng), vary((40, 90, 210), rng), vary((240, 190, 40), rng))[int(rng.integers(3))]
    return quadruped(rng, coat, head, tail=_tail(coat, 0.36, 0.08, 2.3, 1), collar=collar)


def _cat_head(coat: Coat, *, mane: Colour | None = None) -> list[Part]:
    muzzle = smooth(
        [
            (-0.1, 0.02),
            (-0.11, -0.15),
            (0.0, -0.27),
            (0.14, -0.29),
            (0.26, -0.21),
            (0.34, -0.08),
            (0.33, 0.03),
            (0.22, 0.1),
            (0.04, 0.12),
        ]
    )
    whisker = [Detail(np.array([(0.26, 0.0), (0.12, 0.02 + 0.035 * k)]), WHITE, 0.008) for k in (-1, 0, 1)]
    face = [
        Detail(ellipse(0.25, 0.02, 0.1, 0.07), coat.belly), Detail(ellipse(0.33, -0.05, 0.03, 0.025), PINK), *whisker,
        *eye(0.18, -0.12, 0.038, (40, 60, 20), (236, 214, 90)),
        Detail(np.array([(0.33, 0.0), (0.29, 0.05), (0.22, 0.05)]), BLACK, 0.012),
    ]  # fmt: skip
    colours = (coat.back, coat.belly, coat.mark)
    ears = [
        Part(name, ellipse(0, -0.03, 0.065, 0.075), colours, "fur", "head", joint, swing=(0.12, 1, 0.2),
             details=[Detail(ellipse(0.005, -0.02, 0.034, 0.042), PINK)])
        for name, joint in (("far-ear", (0.16, -0.28)), ("ear", (0.0, -0.26)))
    ]  # fmt: skip
    parts = [
        ears[0],
        Part("head", muzzle, colours, coat.texture, "body", (0.45, -0.2), 0.0, (0.07, 1, 0.1), details=face),
        ears[1],
    ]
    if mane is not None:
        turn = np.linspace(0, 2 * np.pi, 30, endpoint=False)
        radius = 0.3 + 0.025 * np.where(np.arange(30) % 2, 1, -1)
        ring = np.stack([0.04 + radius * np.cos(turn), -0.06 + radius * np.sin(turn)], 1)
        parts.insert(0, Part("mane", smooth(ring, 2), (mane, mane), "fur", "head"))
    return parts


def tiger(rng: np.random.Generator) -> list[Part]:
    """Return a tiger: orange with black stripes."""
    amber, white = (
        Coat((232, 128, 36), (250, 226, 190), (28, 20, 18), "stripes"),
        Coat((240, 236, 228), (250, 250, 250), (40, 38, 44), "stripes"),
    )
    coat = pick(rng, [amber, amber, amber, white])
    return quadruped(rng, coat, _cat_head(coat), tail=_tail(coat, 0.5, 0.085, 1.1, 3, coat.mark), thick=0.135)


def leopard(rng: np.random.Generator) -> list[Part]:
    """Return a leopard: yellow with dark spots."""
    yellow, snow = (
        Coat((228, 178, 84), (248, 228, 180), (52, 34, 22), "spots"),
        Coat((206, 200, 190), (236, 232, 226), (56, 52, 52), "spots"),
    )
    coat = pick(rng, [yellow, yellow, yellow, snow])
    return quadruped(rng, coat, _cat_head(coat), tail=_tail(coat, 0.55, 0.08, 1.0, 3), leg=0.38)


def lion(rng: np.random.Generator) -> list[Part]:
    """Return a lion with its mane."""
    coat = pick(rng, [Coat((214, 162, 88), (236, 204, 146), (110, 62, 24), "fur")])
    return quadruped(
        rng, coat, _cat_head(coat, mane=vary((126, 66, 26), rng)), tail=_tail(coat, 0.48, 0.06, 1.0, 2, coat.mark)
    )


def cat(rng: np.random.Generator) -> list[Part]:
    """Return a house cat with a raised tail."""
    coat = pick(
        rng,
        [
            Coat((232, 150, 70), (250, 224, 188), (180, 92, 34), "stripes"),
            Coat((44, 42, 48), (70, 66, 72), (30, 28, 32), "fur"),
            Coat((150, 148, 150), (220, 218, 216), (84, 82, 88), "stripes"),
        ],
    )
    return quadruped(
        rng, coat, _cat_head(coat), tail=_tail(coat, 0.55, 0.075, 2.5, 3), leg=0.34, thick=0.095, girth=0.9
    )


def _grazer_head(
    coat: Coat, face: Colour, *, long: float, horns: bool = False, mane: Colour | None = None
) -> list[Part]:
    neck = smooth(
        [(-0.16, 0.14), (-0.06, -0.2 * long), (0.02, -0.36 * long), (0.14, -0.34 * long), (0.16, -0.1), (0.12, 0.16)]
    )
    skull = smooth(
        [
            (-0.08, -0.06),
            (0.0, -0.13),
            (0.1, -0.1),
            (0.24 + 0.1 * long, 0.04),
            (0.27 + 0.1 * long, 0.12),
            (0.2 + 0.08 * long, 0.17),
            (0.06, 0.1),
            (-0.06, 0.07),
        ]
    )
    nose = (0.24 + 0.09 * long, 0.1)
    details = [
        Detail(ellipse(nose[0] - 0.02, nose[1], 0.05, 0.06), pinkish(face)),
        *eye(0.07, -0.03, 0.026),
        Detail(ellipse(nose[0], nose[1] - 0.01, 0.014, 0.012), BLACK),
    ]
    parts = [
        Part("neck", neck, (coat.back, coat.belly, coat.mark), coat.texture, "body", (0.4, -0.14), 0.12, (0.06, 1, 0.0))
    ]
    if mane is not None:
        parts.append(
            Part(
                "mane",
                smooth(
                    [(-0.12, 0.0), (-0.12, -0.22 * long), (0.0, -0.42 * long), (0.08, -0.36 * long), (0.0, -0.2 * long)]
                ),
                (mane, mane),
                "fur",
                "neck",
            )
        )
    head_at = (0.07, -0.33 * long)
    if horns:
        parts.append(
            Part(
                "horn",
                smooth([(-0.03, 0), (-0.05, -0.1), (0.02, -0.17), (0.01, -0.08), (0.04, 0)]),
                ((228, 220, 196),),
                "plain",
                "head",
                (0.0, -0.1),
            )
        )
    parts.append(
        Part("head", skull, (face, face, coat.mark), "fur", "neck", head_at, 0.1, (0.1, 1, 0.2), details=details)
    )
    parts.append(Part("ear", limb(0.1, 0.06, 0.03), (face, face), "fur", "head", (-0.04, -0.08), 2.5, (0.2, 1, 0.3)))
    return parts


def horse(rng: np.random.Generator) -> list[Part]:
    """Return a horse: long legs, neck and mane."""
    coat = pick(
        rng,
        [
            Coat((122, 66, 32), (150, 92, 52), (40, 26, 20), "fur"),
            Coat((232, 228, 220), (244, 242, 238), (150, 146, 140), "fur"),
            Coat((48, 40, 38), (70, 60, 54), (24, 20, 20), "fur"),
        ],
    )
    head = _grazer_head(coat, coat.back, long=1.15, mane=coat.mark)
    return quadruped(
        rng,
        coat,
        head,
        leg=0.56,
        thick=0.11,
        tail=_tail(Coat(coat.mark, coat.mark, coat.mark, "fur"), 0.42, 0.1, 0.35, 1),
    )


def cow(rng: np.random.Generator) -> list[Part]:
    """Return a cow with patches and horns."""
    coat = pick(
        rng,
        [
            Coat((242, 238, 230), (250, 246, 240), (40, 34, 34), "patches"),
            Coat((240, 232, 220), (250, 244, 236), (150, 82, 44), "patches"),
        ],
    )
    head = _grazer_head(coat, coat.belly, long=0.55, horns=True)
    return quadruped(rng, coat, head, leg=0.4, thick=0.12, girth=1.3, tail=_tail(coat, 0.4, 0.045, 0.3, 1))


def sheep(rng: np.random.Generator) -> list[Part]:
    """Return a sheep: wool, dark face and legs."""
    wool, face = vary((238, 232, 218), rng), vary((60, 52, 50), rng)
    coat = Coat(wool, wool, face, "scales")
    parts = quadruped(rng, coat, _grazer_head(coat, face, long=0.35), leg=0.32, thick=0.09, woolly=True)
    return [
        Part(**{**part.__dict__, "colours": (face,), "texture": "fur"})
        if "hind" in part.name or "fore" in part.name
        else part
        for part in parts
    ]
