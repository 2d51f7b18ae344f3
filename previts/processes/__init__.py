"""Processes of a machine: workers, training ranks, prefetching threads, progress bars and exit codes."""
