"""The container images of the components.

The environment sets registry, tag and digests when the pipeline is compiled; `make push` writes them to
`images/pushed.env`. It also sets the launcher. A step that only starts a training job and waits uses a small image.

Release the compiled YAML together with the images. The YAML contains the bodies of the components, which call functions
of the images by name. A package that was compiled earlier can fail on newer images: compile it with their digests.
"""

import os

REGISTRY = os.environ.get("PREVITS_REGISTRY", "previts")
TAG = os.environ.get("PREVITS_TAG", "0.2.0")
LAUNCHER = os.environ.get("PREVITS_LAUNCHER", "local")


def _name(image: str) -> str:
    digest = os.environ.get(f"PREVITS_{image.upper()}_DIGEST", "")
    return f"{REGISTRY}/previts-{image}@{digest}" if digest else f"{REGISTRY}/previts-{image}:{TAG}"


DATA_IMAGE = _name("data")
TRAIN_IMAGE = _name("train")
LAUNCHER_IMAGE = _name("launcher")
MLFLOW_IMAGE = _name("mlflow")
PRETRAIN_IMAGE = TRAIN_IMAGE if LAUNCHER == "local" else LAUNCHER_IMAGE
IMAGES = (DATA_IMAGE, TRAIN_IMAGE, LAUNCHER_IMAGE, MLFLOW_IMAGE)
