"""Backgrounds and surface textures of the demo world."""
