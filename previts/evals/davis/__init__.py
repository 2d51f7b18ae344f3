"""DAVIS-2016: attention as a tracker, and the measure of the benchmark."""
