"""The moving objects of the demo world."""
