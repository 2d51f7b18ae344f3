"""The kinds of objects that can be drawn, and the nine classes to which they belong.

Not part of the paper.
"""

from collections.abc import Callable

import numpy as np

from previts.demo.cast import animals, beasts, crawlers, things
from previts.demo.cast.puppets import Part

KINDS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "dog": beasts.dog,
    "bird": animals.bird,
    "car": things.car,
    "bus": things.bus,
    "lizard": crawlers.lizard,
    "turtle": crawlers.turtle,
    "tiger": beasts.tiger,
    "leopard": beasts.leopard,
    "lion": beasts.lion,
    "ladybird": crawlers.ladybird,
    "butterfly": crawlers.butterfly,
    "guitar": things.guitar,
    "drum": things.drum,
    "monkey": animals.monkey,
    "goldfish": animals.goldfish,
    "clownfish": animals.clownfish,
    "tang": animals.tang,
    "cat": beasts.cat,
    "horse": beasts.horse,
    "cow": beasts.cow,
    "sheep": beasts.sheep,
    "person": animals.person,
}

# The nine classes of the Backgrounds Challenge, in its order, and the kinds of each.
CLASSES: dict[str, tuple[str, ...]] = {
    "dog": ("dog",),
    "bird": ("bird",),
    "vehicle": ("car", "bus"),
    "reptile": ("lizard", "turtle"),
    "carnivore": ("tiger", "leopard", "lion"),
    "insect": ("ladybird", "butterfly"),
    "instrument": ("guitar", "drum"),
    "primate": ("monkey",),
    "fish": ("goldfish", "clownfish", "tang"),
}
# Kinds that fly, swim or are shown from above: they do not stand on the ground and cast no shadow on it.
AFLOAT = frozenset({"bird", "goldfish", "clownfish", "tang", "lizard", "ladybird", "butterfly"})
