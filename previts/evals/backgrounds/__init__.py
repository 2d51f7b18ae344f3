"""Backgrounds Challenges: of images, of videos, and of the user's own images."""
