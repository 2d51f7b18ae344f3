"""Processes: workers, training ranks, prefetching threads, progress bars, exit codes."""
