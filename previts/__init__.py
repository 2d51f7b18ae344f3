"""PreViTS: learns visual representations from unlabelled video with tracking supervision (arXiv 2112.00804)."""
