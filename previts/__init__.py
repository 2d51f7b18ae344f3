"""PreViTS: visual representations from unlabelled video, pretrained with tracking supervision (arXiv 2112.00804)."""
