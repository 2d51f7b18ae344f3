"""The container images of the components.

`make push` writes registry, tag and digests to a file. PREVITS_IMAGES names this file when the pipeline is compiled,
and single environment variables take precedence over it. The environment also sets the launcher. A step that only
starts a training job and waits uses a small image.

Release the compiled YAML together with the images. The YAML contains the bodies of the components, which call functions
of the images by name. A package that was compiled earlier can fail on newer images: compile it with their digests.
"""

import os


def _written(path: str) -> dict[str, str]:
    """Return the NAME=value pairs of the file that `make push` writes; none without a path."""
    if not path:
        return {}
    try:
        with open(path) as file:
            return dict(pair.split("=", 1) for pair in file.read().split())
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"PREVITS_IMAGES={path} cannot be read ({error}): name the file that `make push` writes"
        ) from None


_SET = {**_written(os.environ.get("PREVITS_IMAGES", "")), **os.environ}
REGISTRY = _SET.get("PREVITS_REGISTRY", "previts")
TAG = _SET.get("PREVITS_TAG", "0.2.0")
LAUNCHER = _SET.get("PREVITS_LAUNCHER", "local")


def _name(image: str) -> str:
    digest = _SET.get(f"PREVITS_{image.upper()}_DIGEST", "")
    return f"{REGISTRY}/previts-{image}@{digest}" if digest else f"{REGISTRY}/previts-{image}:{TAG}"


DATA_IMAGE = _name("data")
TRAIN_IMAGE = _name("train")
LAUNCHER_IMAGE = _name("launcher")
MLFLOW_IMAGE = _name("mlflow")
PRETRAIN_IMAGE = TRAIN_IMAGE if LAUNCHER == "local" else LAUNCHER_IMAGE
IMAGES = (DATA_IMAGE, TRAIN_IMAGE, LAUNCHER_IMAGE, MLFLOW_IMAGE)
