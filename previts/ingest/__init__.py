"""Videos in: crawls are read, files fetched, decoded in a child process and stored in shards."""
