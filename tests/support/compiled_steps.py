"""The Kubernetes settings of the steps in the committed pipelines."""

import functools
from pathlib import Path
from typing import Any

import yaml

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))


@functools.cache
def steps() -> dict[str, dict[str, Any]]:
    """Return the Kubernetes settings of each step of the compiled pipelines, by its executor."""
    found = {}
    for path in PIPELINES:
        pipeline, platform = yaml.safe_load_all(path.read_text())
        settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        assert set(settings) == set(pipeline["deploymentSpec"]["executors"])
        found |= settings
    return found
