"""Predictor by a trained network. Oracles: the network on resized frames, the CRF on its maps."""

import cv2
import numpy as np
import pytest
import torch

from previts.saliency import crf, fit, infer
from previts.saliency.network import SaliencyNetwork, encode
from previts.storage import files, tensors


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a model folder with a random network, whose maps differ from pixel to pixel and from frame to frame."""
    uri = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(0)
    network = SaliencyNetwork("drn_d_22", 0.125, "contrast")
    torch.nn.init.normal_(network.seg.weight, 0, 0.5)
    files.write_bytes(files.join(uri, fit.NETWORK), tensors.to_bytes(network.state_dict()))
    shape = {"network": "drn_d_22", "width": 0.125, "inputs": "contrast", "size": 32}
    files.write_json(files.join(uri, fit.SHAPE), shape)
    return uri


def test_maps_equal_the_networks_output_resized_to_the_frames(model):
    find = infer.load_network_predictor(model, use_crf=False)
    images = np.random.default_rng(0).integers(0, 256, (11, 50, 90, 3), dtype=np.uint8)
    maps = find(images)
    assert maps.shape == (11, 50, 90)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(find(images[7:8])[0], maps[7], atol=1e-4)
    rows, columns = infer.working_shape(50, 90, 32)
    network, size = fit.load_network(model)
    assert size == 32
    small = cv2.resize(images[3], (columns, rows), interpolation=cv2.INTER_AREA)
    with torch.inference_mode():
        expected = network(encode(torch.from_numpy(small)[None], "contrast"))[0].numpy()
    np.testing.assert_allclose(cv2.resize(expected, (90, 50)), maps[3], atol=1e-4)


def test_the_crf_refines_the_map_of_the_resized_frame(model):
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)  # no resize is needed
    plain, refined = (infer.load_network_predictor(model, use_crf)(image)[0] for use_crf in (False, True))
    assert np.abs(refined - plain).max() > 0.01
    np.testing.assert_allclose(refined, crf.refine(plain, image[0], 32 / 432), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(240, 426), (426, 240), (8, 8), (4, 2000), (432, 432)])
def test_the_working_shape_has_the_area_of_the_training_squares(height, width):
    rows, columns = infer.working_shape(height, width, 128)
    assert rows % 8 == columns % 8 == 0
    assert min(rows, columns) >= 8
    if max(height, width) < 4 * min(height, width):
        assert rows * columns == pytest.approx(128 * 128, rel=0.15)
        assert rows / columns == pytest.approx(height / width, rel=0.1)
