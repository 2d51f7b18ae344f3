"""Pretraining: pairs from an index, one loop, a checkpoint."""
