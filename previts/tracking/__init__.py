"""Tracking of the salient object of each video with SORT, which yields its tube (PreViTS section 3.2)."""
