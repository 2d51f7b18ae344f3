"""Pretraining: from an index of videos to a checkpoint of a model."""
