"""Oracles: the stored frames and their maps, files that an earlier call left, the network's own answer."""

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
from previts.config.experiment import PRIORS
from previts.corpus import region_table, video_table
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.saliency import fit, infer, priors, usps
from previts.saliency.network import SaliencyNetwork, encode
from previts.saliency.priors import prior_maps
from previts.saliency.weights import read_weights
from previts.storage import files, folders, tables

FRAMES = 12


def moving_disc(number):
    grain = np.random.default_rng(number).integers(80, 110, (64, 96, 1))
    for frame in range(FRAMES):
        image = np.broadcast_to(grain, (64, 96, 3)).astype(np.uint8)
        cv2.circle(image, (30 + 3 * frame, 28 + number), 13, (220, 40 + 40 * number, 30), -1)
        yield image


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One shard of four clips, committed as `download` does."""
    folder = tmp_path_factory.mktemp("crawl")
    for number in range(4):
        normalisation.encode_video(moving_disc(number), 12.0, str(folder / f"disc{number}.mp4"))
    items = [CrawlItem(f"disc{n}", str(folder / f"disc{n}.mp4"), None, None, "", "") for n in range(4)]
    root = str(tmp_path_factory.mktemp("root"))
    decided = {"crawl": "discs"}
    uri = folders.address(root, "videos", "crawl", decided)
    shards.build_shard(items, 0, uri, experiment.VideoConfig(), workers=1)
    folders.commit(uri, decided, counts={"shards": 1})
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


def test_maps_that_collapsed_are_remarked_on():
    sound = {f"{prior}_kept": 0.5 for prior in PRIORS}
    assert fit.collapse_warning(sound) == ""
    assert "maps of the priors mc, hs have" in fit.collapse_warning({**sound, "mc_kept": 0.0, "hs_kept": 0.09})


@pytest.mark.parametrize(("videos", "lengths", "wanted"), [(4, [10] * 4, 12), (4, [10, 1, 3, 40], 20), (9, [5] * 9, 4)])
def test_frames_are_shared_out_evenly(videos, lengths, wanted):
    chosen = fit.choose_frames(videos, lengths, wanted)
    counts = [len(frames) for _, frames in chosen]
    assert sum(counts) <= wanted
    if wanted >= videos:  # as many of each as of any other, where it has so many
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


def test_what_is_learned_from_are_the_stored_frames_and_their_handcrafted_maps(videos, model):
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
def test_a_call_that_was_stopped_goes_on_to_the_same_network(videos, model, tmp_path, kept):
    if kept == "fusion":  # stopped after two of four epochs of the last network
        half = str(tmp_path / "half")
        shutil.copytree(model, half, ignore=shutil.ignore_patterns("network.*", "fusion.pt*"))
        images, _ = fit._frames(videos, CONFIG, half, map)
        refined = [np.load(Path(half) / f"round-{prior}-0.npz")["maps"] for prior in PRIORS]
        training = usps.fusion_training(usps.build_network(CONFIG, None), CONFIG, torch.device("cpu"))
        losses = [training.run_epoch(images, refined) for _ in range(2)]
        torch.save({"training": training.state(), "losses": losses}, f"{half}/{fit.FUSION}")
        uri = half
    else:
        uri = str(tmp_path)
        for name in kept:
            shutil.copy(Path(model) / name, tmp_path / name)
    fit.fit(videos, CONFIG, None, uri)
    for name, value in weights_of(model).items():
        assert torch.equal(weights_of(uri)[name], value), name


def test_files_that_were_cut_short_are_made_anew(videos, model, tmp_path):
    shutil.copytree(model, tmp_path / "cut", ignore=shutil.ignore_patterns("network.*"))
    for name in ("round-hs-0.npz", "fusion.pt"):
        path = tmp_path / "cut" / name
        path.write_bytes(path.read_bytes()[:-100])
    fit.fit(videos, CONFIG, None, str(tmp_path / "cut"))
    for name, value in weights_of(model).items():
        assert torch.equal(weights_of(tmp_path / "cut")[name], value), name


def test_a_damaged_model_says_what_to_do(model, tmp_path):
    shutil.copytree(model, tmp_path / "bad")
    (tmp_path / "bad" / fit.NETWORK).write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"bad cannot be read .* run `previts fit_saliency` again"):
        fit.load_network(str(tmp_path / "bad"))
    with pytest.raises(InputError, match="cannot be read"):
        fit.load_network(str(tmp_path / "nothing"))


def test_maps_have_the_shape_of_the_frames_and_each_frame_its_own(model):
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


@pytest.mark.parametrize(("height", "width"), [(240, 426), (426, 240), (8, 8), (4, 2000), (432, 432)])
def test_frames_go_through_the_network_at_the_area_it_learned_at(height, width):
    rows, columns = infer.working_shape(height, width, 128)
    assert rows % 8 == columns % 8 == 0
    assert min(rows, columns) >= 8
    if max(height, width) < 4 * min(height, width):
        assert rows * columns == pytest.approx(128 * 128, rel=0.15)
        assert rows / columns == pytest.approx(height / width, rel=0.1)


def test_the_stage_says_that_no_labels_were_involved(videos):
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
    }  # what only the training needed is gone
    rbd = stages.fit_saliency(videos, root, "paper", ["saliency.method=rbd"])
    with pytest.raises(InputError, match=r"is a model for saliency\.method=rbd, but here saliency\.method=deepusps"):
        stages.saliency(videos, rbd, root, "paper", SET)
    masks = stages.saliency(videos, uri, root, "paper", [*SET, "saliency.every=4"])
    rows = tables.read_records(files.join(masks, tables.table_name(0)), region_table.SaliencyRecord)
    assert len(rows) == 4 * 3
    assert [row.agreement is not None for row in rows] == [row.frame == 0 for row in rows]


def test_weights_decide_the_model_by_their_content_and_may_hide_labels(videos, tmp_path):
    root = videos.split("/videos/")[0]
    torch.manual_seed(3)
    state = SaliencyNetwork("drn_d_22", 0.125, "contrast").state_dict()
    torch.save(state, tmp_path / "one.pt")
    shutil.copy(tmp_path / "one.pt", tmp_path / "two.pt")
    one, two = (
        stages.fit_saliency(videos, root, "paper", [*SET, f"fit.weights={tmp_path / name}"])
        for name in ("one.pt", "two.pt")
    )
    assert one == two
    assert one != stages.fit_saliency(videos, root, "paper", SET)
    manifest = folders.read_manifest(one)
    assert manifest.info["labels"].startswith("unknown: the weights at")
    fixed = {name for name in state if name.startswith(("seg.", "up."))}  # the classifier is never taken over
    assert (manifest.counts["tensors_given"], manifest.counts["tensors_taken"]) == (len(state), len(state) - len(fixed))


def test_an_encoder_of_this_project_has_the_labels_of_its_tubes(tmp_path):
    torch.manual_seed(4)
    encoder = {"conv1.weight": torch.randn(64, 3, 7, 7), "layer1.0.conv1.weight": torch.randn(64, 64, 3, 3)}
    torch.save(encoder, tmp_path / "encoder.pt")
    root, decided = str(tmp_path / "root"), {"row": "x"}
    uri = folders.address(root, "checkpoints", "x", decided)
    files.upload(str(tmp_path / "encoder.pt"), files.join(uri, "encoder.pt"))
    folders.commit(uri, decided)
    found = read_weights(uri)
    assert found.labels.startswith("unknown: an encoder that this project pretrained")  # the chain of tubes is not here
    assert set(found.tensors) == set(encoder)


def test_weights_of_half_precision_are_taken_as_whole_ones(tmp_path):
    weight, count = torch.randn(16, 3, 7, 7), torch.tensor(3)
    state = {"layer0.0.weight": weight.bfloat16(), "layer0.1.num_batches_tracked": count}
    torch.save(state, tmp_path / "half.pt")
    found = read_weights(str(tmp_path / "half.pt")).tensors
    assert found["layer0.0.weight"].dtype == torch.float32
    assert found["layer0.1.num_batches_tracked"].dtype == torch.int64
    torch.testing.assert_close(found["layer0.0.weight"], weight, atol=0.02, rtol=0.01)


def test_weights_that_cannot_be_used_are_named(videos, tmp_path):
    root = videos.split("/videos/")[0]
    with pytest.raises(InputError, match=r"fit\.weights names .*missing\.pt, and there is no such file"):
        read_weights(str(tmp_path / "missing.pt"))
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(InputError, match="and it is a folder; give a state dict"):
        read_weights(str(tmp_path))
    with pytest.raises(InputError, match=r"text\.pt holds no weights that can be read \(\w+\)"):
        read_weights(str(tmp_path / "text.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="contains list, expected tensors by name"):
        read_weights(str(tmp_path / "list.pt"))
    with pytest.raises(InputError, match="is an output of stage 'videos'"):
        read_weights(videos)
    torch.save({"other.weight": torch.zeros(3, 3, 1, 1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"none of the 1 tensors fits the network .*drn_d_22"):
        stages.fit_saliency(videos, root, "paper", [*SET, f"fit.weights={tmp_path / 'other.pt'}"])
    with pytest.raises(InputError, match=r"saliency\.method=supervised needs fit\.weights"):
        stages.fit_saliency(videos, root, "paper", ["saliency.method=supervised"])


def test_agreement_is_one_for_equal_maps_and_nothing_for_disjoint_ones():
    left, right = np.zeros((2, 6, 8), np.float32)
    left[:, :4], right[:, 4:] = 1, 1
    assert priors.mean_agreement({"a": left, "b": left, "c": left}) == 1
    assert priors.mean_agreement({"a": left, "b": right}) == 0
    assert priors.mean_agreement({"a": left, "b": left, "c": right}) == pytest.approx(1 / 3)
    assert priors.mean_agreement({"a": left * 0, "b": left * 0}) == 0


def test_nothing_is_salient_where_nothing_is_asked_for(videos, capsys):
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
