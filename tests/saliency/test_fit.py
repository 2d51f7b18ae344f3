"""Training of a saliency model. Oracles: the stored frames and their maps, files of an interrupted call."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_network import SMALL

from previts import stages
from previts.config import experiment
from previts.config.perception import PRIORS
from previts.corpus import region_table, video_table
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.processes import workers
from previts.saliency import fit, usps
from previts.saliency.network import SaliencyNetwork
from previts.saliency.priors import prior_maps
from previts.storage import files, folders, tables, tensors

FRAMES = 12


def moving_disc(number):
    grain = np.random.default_rng(number).integers(80, 110, (64, 96, 1))
    for frame in range(FRAMES):
        image = np.broadcast_to(grain, (64, 96, 3)).astype(np.uint8)
        cv2.circle(image, (30 + 3 * frame, 28 + number), 13, (220, 40 + 40 * number, 30), -1)
        yield image


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Store one shard of four videos, committed as `download` does."""
    folder = tmp_path_factory.mktemp("crawl")
    for number in range(4):
        normalisation.encode_video(moving_disc(number), 12.0, str(folder / f"disc{number}.mp4"))
    items = [CrawlItem(f"disc{n}", str(folder / f"disc{n}.mp4"), None, None, "", "") for n in range(4)]
    root = str(tmp_path_factory.mktemp("root"))
    decided = {"crawl": "discs"}
    uri = folders.address(root, "videos", "crawl", decided)
    shards.build_shard(items, 0, uri, experiment.VideoConfig(), workers=1)
    folders.commit(uri, decided, counts={"shards": 1}, files=["shard-00000.parquet"])
    return uri


CONFIG = replace(SMALL, frames=5, round_epochs=2, fusion_epochs=4, batch_size=5)
SET = ["fit.network=drn_d_22", "fit.width=0.125", "fit.inputs=contrast", "fit.size=32", "fit.frames=6", "fit.rounds=1",
       "fit.round_epochs=1", "fit.fusion_epochs=1", "fit.batch_size=3", "fit.history_crf=last"]  # fmt: skip


@pytest.fixture(scope="module")
def model(videos, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("model"))
    counts = fit.fit(videos, CONFIG, None, uri)
    assert counts["frames"] == 5
    assert counts["loss_last"] < counts["loss_first"]
    return uri


def test_collapsed_maps_have_a_warning():
    sound = {f"{prior}_kept": 0.5 for prior in PRIORS}
    assert fit.collapse_warning(sound) == ""
    assert "maps of the priors mc, hs have" in fit.collapse_warning({**sound, "mc_kept": 0.0, "hs_kept": 0.09})


@pytest.mark.parametrize(("videos", "lengths", "wanted"), [(4, [10] * 4, 12), (4, [10, 1, 3, 40], 20), (9, [5] * 9, 4)])
def test_frames_are_chosen_evenly(videos, lengths, wanted):
    chosen = fit.choose_frames(videos, lengths, wanted)
    counts = [len(frames) for _, frames in chosen]
    assert sum(counts) <= wanted
    if wanted >= videos:  # the same number from each video that has so many frames
        assert counts == [min(length, wanted // videos + (n < wanted % videos)) for n, length in enumerate(lengths)]
    for video_number, frames in chosen:
        assert frames == sorted(set(frames))
        assert all(0 <= frame < lengths[video_number] for frame in frames)
    if wanted >= videos:
        assert [number for number, _ in chosen] == list(range(videos))
    else:
        assert len(chosen) == wanted
        assert chosen[0][0] == 0
        assert chosen[-1][0] == videos - 1


def test_training_data_are_the_stored_frames_and_their_handcrafted_maps(videos, model):
    stored = np.load(Path(model) / fit.FRAMES)
    rows = video_table.read_shard(videos, 0)
    place = 0
    for number, frames in fit.choose_frames(4, [FRAMES] * 4, 5):
        for image in video_table.read_frames(videos, rows[number], frames):
            np.testing.assert_array_equal(stored["images"][place], usps.squash(image, 32))
            for prior, saliency in prior_maps(image).items():
                np.testing.assert_array_equal(stored[prior][place], usps.squash(usps.to_levels(saliency), 32))
            place += 1
    assert place == 5


def weights_of(uri):
    return torch.load(Path(uri) / fit.NETWORK, weights_only=True)


@pytest.mark.parametrize("kept", [[], ["frames.npz"], ["frames.npz", "round-rbd-0.npz", "round-mc-0.npz"], "fusion"])
def test_a_resumed_call_yields_the_same_network(videos, model, tmp_path, kept):
    if kept == "fusion":  # stopped after two of four epochs of the last network
        half = str(tmp_path / "half")
        shutil.copytree(model, half, ignore=shutil.ignore_patterns("network.*", "fusion.pt*"))
        torch.set_num_threads(workers.alone())  # as `fit` does: the order of sums depends on it
        images, _ = fit._frames(videos, CONFIG, half, map)
        refined = [np.load(Path(half) / f"round-{prior}-0.npz")["maps"] for prior in PRIORS]
        training = usps.fusion_training(usps.build_network(CONFIG, None), CONFIG, torch.device("cpu"))
        losses = [training.run_epoch(images, refined) for _ in range(2)]
        tensors.write_checked(f"{half}/{fit.FUSION}", {"training": training.state(), "losses": losses})
        uri = half
    else:
        uri = str(tmp_path)
        for name in kept:
            for suffix in ("", ".sha256"):
                shutil.copy(Path(model) / f"{name}{suffix}", tmp_path / f"{name}{suffix}")
    fit.fit(videos, CONFIG, None, uri)
    for name, value in weights_of(model).items():
        assert torch.equal(weights_of(uri)[name], value), name


def test_a_round_of_an_earlier_call_is_not_repeated(videos, model, tmp_path):
    config = replace(CONFIG, rounds=2, round_epochs=4, fusion_epochs=1)  # the first epoch does not depend on the maps
    for name in (fit.FRAMES, f"{fit.FRAMES}.sha256"):
        shutil.copy(Path(model) / name, tmp_path / name)
    frames = np.load(tmp_path / fit.FRAMES)
    for prior in PRIORS:  # maps that no training made
        tensors.write_checked(str(tmp_path / f"round-{prior}-0.npz"), {"maps": 255 - frames[prior]})
    fit.fit(videos, config, None, str(tmp_path))
    training = usps.round_training(1, "rbd", usps.build_network(config, None), config, torch.device("cpu"))
    expected = usps.refine_round(training, frames["images"], 255 - frames["rbd"], "", workers.in_order)
    np.testing.assert_array_equal(np.load(tmp_path / "round-rbd-1.npz")["maps"], expected)


def test_epochs_of_an_earlier_call_are_not_repeated(videos, model, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(model, half, ignore=shutil.ignore_patterns("network.*", "fusion.pt*"))
    images, first = fit._frames(videos, CONFIG, str(half), map)
    training = usps.fusion_training(usps.build_network(CONFIG, None), CONFIG, torch.device("cpu"))
    losses = [training.run_epoch(images, [first[prior] for prior in PRIORS]) for _ in range(CONFIG.fusion_epochs)]
    tensors.write_checked(str(half / fit.FUSION), {"training": training.state(), "losses": losses})
    fit.fit(videos, CONFIG, None, str(half))
    for name, value in training.network.state_dict().items():
        assert torch.equal(weights_of(half)[name], value), name


def test_truncated_files_are_made_again(videos, model, tmp_path):
    shutil.copytree(model, tmp_path / "cut", ignore=shutil.ignore_patterns("network.*"))
    for name in ("round-hs-0.npz", "fusion.pt"):
        path = tmp_path / "cut" / name
        path.write_bytes(path.read_bytes()[:-100])
    fit.fit(videos, CONFIG, None, str(tmp_path / "cut"))
    for name, value in weights_of(model).items():
        assert torch.equal(weights_of(tmp_path / "cut")[name], value), name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("frames.npz", {"images": np.zeros(3)}),
        ("round-mc-0.npz", {"maps": np.zeros((2, 2), np.uint8)}),
        ("fusion.pt", {"losses": [], "training": {"epoch": 1, "network": {}, "optimiser": {}}}),
    ],
)
def test_a_file_with_other_content_is_named_with_what_to_do(videos, model, tmp_path, name, content):
    half = tmp_path / "half"
    shutil.copytree(model, half, ignore=shutil.ignore_patterns("network.*"))
    tensors.write_checked(str(half / name), content)
    with pytest.raises(InputError, match=rf"{name} .*; delete it and run the same command again"):
        fit.fit(videos, CONFIG, None, str(half))


def test_the_error_for_a_damaged_model_says_what_to_do(model, tmp_path):
    shutil.copytree(model, tmp_path / "bad")
    (tmp_path / "bad" / fit.NETWORK).write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"bad cannot be read .* run `previts fit_saliency` again"):
        fit.load_network(str(tmp_path / "bad"))
    with pytest.raises(InputError, match="cannot be read"):
        fit.load_network(str(tmp_path / "nothing"))
    shutil.copytree(model, tmp_path / "shape")
    for text, message in (
        ('{"network": "drn_d_22", "width": "wide", "inputs": "rgb", "size": 32}', "width must be a number, got 'wide'"),
        ('{"network": "vgg", "width": 1, "inputs": "rgb", "size": 32}', "network must be one of drn_d_105, drn_d_22"),
        ('{"network": "drn_d_22", "width": 1e9, "inputs": "rgb", "size": 32}', r"fit.width must be in \(0, 1\]"),
        ('{"network": "drn_d_22", "width": 0.1, "inputs": "rgb", "size": -8}', "fit.size must be a multiple of 8"),
        ("[]", "must be an object with the fields network, width, inputs, size"),
    ):
        (tmp_path / "shape" / fit.SHAPE).write_text(text)
        with pytest.raises(InputError, match=rf"network\.json: .*{message}.*run `previts fit_saliency` again"):
            fit.load_network(str(tmp_path / "shape"))


def test_the_manifest_records_that_no_labels_were_used(videos):
    root = videos.split("/videos/")[0]
    uri = stages.fit_saliency(videos, root, "paper", SET)
    manifest = folders.read_manifest(uri)
    assert manifest.info["labels"] == "none: handcrafted maps, random start"
    assert manifest.counts["frames"] == 6
    assert stages.fit_saliency(videos, root, "paper", SET) == uri
    assert set(files.names(uri)) == {
        fit.NETWORK,
        fit.SHAPE,
        folders.MANIFEST,
    }  # files that only the training needed are deleted
    rbd = stages.fit_saliency(videos, root, "paper", ["saliency.method=rbd"])
    with pytest.raises(InputError, match=r"is a model for saliency\.method=rbd, but here saliency\.method=deepusps"):
        stages.saliency(videos, rbd, root, "paper", SET)
    masks = stages.saliency(videos, uri, root, "paper", [*SET, "saliency.every=4"])
    rows = tables.read_records(files.join(masks, tables.table_name(0)), region_table.SaliencyRecord)
    assert len(rows) == 4 * 3
    assert [row.agreement is not None for row in rows] == [row.frame == 0 for row in rows]


def test_the_address_contains_the_content_of_weights_and_their_labels_are_unknown(videos, tmp_path, monkeypatch):
    root = videos.split("/videos/")[0]
    torch.manual_seed(3)
    state = SaliencyNetwork("drn_d_22", 0.125, "contrast").state_dict()
    torch.save(state, tmp_path / "one.pt")
    shutil.copy(tmp_path / "one.pt", tmp_path / "two.pt")
    with monkeypatch.context() as shared:
        shared.setenv(workers.COUNT, "2")  # other processes get the weights
        one = stages.fit_saliency(videos, root, "paper", [*SET, f"fit.weights={tmp_path / 'one.pt'}"])
    two = stages.fit_saliency(videos, root, "paper", [*SET, f"fit.weights={tmp_path / 'two.pt'}"])
    assert one == two
    assert one != stages.fit_saliency(videos, root, "paper", SET)
    manifest = folders.read_manifest(one)
    assert manifest.info["labels"].startswith("unknown: the weights at")
    fixed = {name for name in state if name.startswith(("seg.", "up."))}  # the classifier is never loaded
    assert (manifest.counts["tensors_given"], manifest.counts["tensors_taken"]) == (len(state), len(state) - len(fixed))


def test_method_none_yields_no_tubes(videos, capsys):
    root = videos.split("/videos/")[0]
    chosen = ["saliency.method=none"]
    model = stages.fit_saliency(videos, root, "paper", chosen)
    masks = stages.saliency(videos, model, root, "paper", chosen)
    tubes = stages.track(videos, masks, root, "paper", chosen)
    index = stages.index(videos, tubes, root, "paper", chosen)
    counts = folders.read_manifest(index).counts
    assert counts["videos"] == 4
    assert counts["videos_with_tube"] == counts["tracked_frames"] == 0
    assert "no video has a tube: only rows without tracking" in capsys.readouterr().err


def test_weights_that_do_not_fit_the_method_are_refused(videos, tmp_path):
    root = videos.split("/videos/")[0]
    torch.save({"other.weight": torch.zeros(3, 3, 1, 1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"none of the 1 tensors fits the network .*drn_d_22"):
        stages.fit_saliency(videos, root, "paper", [*SET, f"fit.weights={tmp_path / 'other.pt'}"])
    with pytest.raises(InputError, match=r"saliency\.method=supervised needs fit\.weights"):
        stages.fit_saliency(videos, root, "paper", ["saliency.method=supervised"])
