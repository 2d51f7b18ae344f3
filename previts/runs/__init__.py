"""A run of the whole pipeline: its arms, the checks before it, and what each of its steps does."""
