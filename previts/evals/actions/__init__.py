"""Action recognition: UCF-101 and HMDB-51."""
