"""The tables that stages leave for each other: videos, regions, tubes, index."""
