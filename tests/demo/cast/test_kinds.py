import numpy as np

from previts.demo.cast.kinds import CLASSES, KINDS
from previts.demo.cast.puppets import build_puppet


def test_every_kind_can_be_drawn_and_has_its_own_area():
    areas = {}
    for kind, shape in KINDS.items():
        puppet = build_puppet(shape(np.random.default_rng(1)), 60, np.random.default_rng(1))
        assert 0.08 < puppet.area < 1.2, kind
        areas[kind] = puppet.area
    assert len(set(areas.values())) == len(KINDS)


def test_every_class_has_kinds_that_exist():
    assert len(CLASSES) == 9
    assert all(kinds and set(kinds) <= set(KINDS) for kinds in CLASSES.values())
