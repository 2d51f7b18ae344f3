"""The labelled sets of the demo world, in the official layouts of the benchmarks."""
