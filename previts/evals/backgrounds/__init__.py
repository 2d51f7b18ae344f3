"""The Backgrounds Challenges of images and of videos, and the writer of variants of the user's own images."""
