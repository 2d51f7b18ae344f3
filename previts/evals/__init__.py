"""The benchmarks of the paper: one module per family; `run.evaluate` runs any of them by name."""
