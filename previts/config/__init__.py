"""Decisions: experiments, evaluation protocols, benchmarks, the paper's rows, profiles."""
