"""The tables of the corpus that stages write for later stages: videos, salient regions, tubes and the index."""
