"""Video ingest: reads a crawl, fetches its files, normalises them in a child process and stores them in shards."""
