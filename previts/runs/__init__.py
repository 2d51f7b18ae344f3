"""A run of the whole pipeline: its trials, the checks before it, and what each of its steps does."""
