"""The container images of the components, named in one place.

A cluster's registry and digest come from the environment when the pipeline is compiled.
"""

import os

REGISTRY = os.environ.get("PREVITS_REGISTRY", "previts")
TAG = os.environ.get("PREVITS_TAG", "0.1.0")

DATA_IMAGE = f"{REGISTRY}/previts-data:{TAG}"
TRAIN_IMAGE = f"{REGISTRY}/previts-train:{TAG}"
