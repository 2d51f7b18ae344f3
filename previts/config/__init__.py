"""The settings that decide results: experiments, evaluations, benchmarks, the rows of the paper and the profiles."""
