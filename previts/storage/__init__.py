"""Files, tables, tensors and result folders on any fsspec file system."""
