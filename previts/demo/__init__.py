"""A small synthetic world with exact masks, in each benchmark's official layout: what the pipeline runs on by default.

Textured, jointed, turning objects of nine classes and eight actions move over cluttered backgrounds that go with their
class, so that a model can cheat by looking at the background. Stands for the data of the paper's section 4.
Never trains anything.
"""

from previts.corpus.truth import read_masks
from previts.demo.config import TINY, WorldConfig
from previts.demo.world import make_world

__all__ = ["TINY", "WorldConfig", "make_world", "read_masks"]
