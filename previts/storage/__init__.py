"""Storage on any fsspec file system: files, tables, tensors, result folders, fingerprints and states to resume from."""
