"""The backgrounds of the demo world."""
