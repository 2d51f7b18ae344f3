"""The demo world: synthetic videos and labelled sets with exact masks, the default input of the pipeline.

Textured, jointed objects of nine classes and eight actions turn and move over cluttered backgrounds. Most objects are
shown over the family of backgrounds of their class, so that a model can cheat by using the background. The world
replaces the data of the paper's section 4. Nothing here trains a model.
"""

from previts.corpus.truth import read_masks
from previts.demo.config import TINY, WorldConfig
from previts.demo.world import CRAWLS, add_crawl, make_world

__all__ = ["CRAWLS", "TINY", "WorldConfig", "add_crawl", "make_world", "read_masks"]
