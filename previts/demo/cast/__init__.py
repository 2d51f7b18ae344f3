"""The moving objects of the demo world: shapes, motion, and the choice of objects and backgrounds for a scene."""
