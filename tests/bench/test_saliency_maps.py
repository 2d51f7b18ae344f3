"""Quality, cost and failures of each saliency method on photographs with masks.

Run by `make bench`, or alone with `-m bench -s`. `PREVITS_BENCH_OUT` is the folder for images and numbers.
`PREVITS_BENCH_MODEL` is the folder of a trained saliency network to measure too.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from previts.config.perception import PRIORS, SaliencyConfig
from previts.saliency.predict import load_predictor
from previts.saliency.priors import prior_map, prior_maps

Map = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Method = Callable[[Image], Map]

BETA2 = 0.3
BLOB_SIGMA = 0.25  # of the image side
SHOWN = 6  # best and worst images of each method
TILE = (200, 150)  # width and height of an image in the sheet
HEADING = 22  # pixels


def centred_blob(image: Image) -> Map:
    """Return a Gaussian in the middle, the same for each image: a baseline that does not use the image."""
    profiles = [
        np.exp(-(((np.arange(size) + 0.5) / size - 0.5) ** 2) / (2 * BLOB_SIGMA**2)) for size in image.shape[:2]
    ]
    return np.outer(*profiles).astype(np.float32)


def methods() -> dict[str, Method]:
    """Return the methods to compare, by name."""
    found: dict[str, Method] = {"centred Gaussian": centred_blob}
    for name in PRIORS:
        found[name] = lambda image, name=name: prior_map(name, image)
    found["mean of the four"] = lambda image: np.mean(list(prior_maps(image, PRIORS).values()), axis=0)
    if model := os.environ.get("PREVITS_BENCH_MODEL"):
        predict = load_predictor(model, SaliencyConfig(method="deepusps"))
        found["deepusps"] = lambda image: predict(image[None])[0]
    return found


def photographs(folder: Path) -> list[tuple[str, Image, npt.NDArray[np.bool_]]]:
    """Return the name, the image and the mask of the object of each photograph."""
    found = []
    for path in sorted((folder / "images").iterdir()):
        mask = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) > 127
        found.append((path.stem, cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), mask))
    return found


def adaptive_f(saliency: Map, mask: npt.NDArray[np.bool_]) -> float:
    """Return F of the pixels whose saliency is at least twice the mean."""
    chosen = saliency >= min(2 * saliency.mean(), 1)
    hits = (chosen & mask).sum()
    return float((1 + BETA2) * hits / (BETA2 * mask.sum() + chosen.sum())) if hits else 0.0


def figures(maps: list[Map], masks: list[npt.NDArray[np.bool_]]) -> dict[str, float]:
    """Return the usual metrics, computed by PySODMetrics."""
    metrics = pytest.importorskip("py_sod_metrics")
    handler = metrics.FmeasureHandler(beta=BETA2, with_adaptive=True, with_dynamic=True)
    f, error = metrics.FmeasureV2({"f": handler}), metrics.MAE()
    structure, enhanced = metrics.Smeasure(), metrics.Emeasure()
    for saliency, mask in zip(maps, masks, strict=True):
        for metric in (f, error, structure, enhanced):
            metric.step(saliency.clip(0, 1), mask, normalize=False)
    e = enhanced.get_results()["em"]
    return {
        "F adaptive": f.get_results()["f"]["adaptive"],
        "F max": f.get_results()["f"]["dynamic"].max(),
        "MAE": error.get_results()["mae"],
        "S": structure.get_results()["sm"],
        "E adaptive": e["adp"],
        "E max": e["curve"].max(),
    }


def column(image: Image, mask: npt.NDArray[np.bool_], saliency: Map, heading: str) -> Image:
    """Return image, mask and map below each other, under a heading."""
    grey = [np.repeat(np.uint8(values * 255)[..., None], 3, axis=2) for values in (mask, saliency)]
    tiles = [cv2.resize(tile, TILE, interpolation=cv2.INTER_AREA) for tile in (image, *grey)]
    band = np.full((HEADING, TILE[0], 3), 255, np.uint8)
    cv2.putText(band, heading, (4, HEADING - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([band, *tiles])


def sheet(photos: list[tuple[str, Image, npt.NDArray[np.bool_]]], maps: list[Map]) -> Image:
    """Return a sheet of the images with the largest F and, below them, those with the smallest."""
    scores = [adaptive_f(saliency, mask) for (_, _, mask), saliency in zip(photos, maps, strict=True)]
    order = np.argsort(scores, kind="stable")
    rows = []
    for chosen in (order[::-1][:SHOWN], order[:SHOWN]):
        columns = []
        for index in chosen:
            name, image, mask = photos[index]
            columns.append(column(image, mask, maps[index], f"{scores[index]:.2f} {name[-20:]}"))
        rows.append(np.concatenate(columns, axis=1))
    return np.concatenate(rows)


@pytest.mark.bench
def test_saliency_of_photographs(real_data: Path):
    out = Path(os.environ.get("PREVITS_BENCH_OUT") or tempfile.mkdtemp(prefix="previts-saliency-"))
    out.mkdir(parents=True, exist_ok=True)
    photos = photographs(real_data / "saliency")
    masks = [mask for _, _, mask in photos]
    table: dict[str, dict[str, float]] = {}
    for name, method in methods().items():
        with threadpool_limits(limits=1, user_api="blas"):
            method(photos[0][1])  # the first use loads libraries
            start = time.process_time()
            maps = [method(image) for _, image, _ in photos]
            seconds = time.process_time() - start
        table[name] = figures(maps, masks) | {"CPU ms": 1000 * seconds / len(photos)}
        path = out / f"saliency-{name.replace(' ', '-')}.png"
        cv2.imwrite(str(path), cv2.cvtColor(sheet(photos, maps), cv2.COLOR_RGB2BGR))
    keys = list(next(iter(table.values())))
    print(f"\n{len(photos)} images with masks, sheets in {out}")
    print("".join([f"{'':18}", *(f"{key:>12}" for key in keys)]))
    for name, row in table.items():
        print(
            "".join([f"{name:18}", *(f"{row[key]:12.1f}" if key == "CPU ms" else f"{row[key]:12.3f}" for key in keys)])
        )
    text = json.dumps({name: {key: round(float(row[key]), 4) for key in keys} for name, row in table.items()}, indent=1)
    (out / "saliency.json").write_text(text)
    print(text)
