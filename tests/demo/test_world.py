import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from scipy.io import loadmat
from strange_videos import decode_file
from torchvision.datasets import ImageFolder, VOCDetection

from previts import errors
from previts.config import experiment
from previts.demo import TINY, WorldConfig, make_world, read_masks
from previts.demo.cast.casting import Shot, compose
from previts.demo.cast.kinds import CLASSES, KINDS
from previts.demo.cast.motion import ACTIONS, Camera, Motion
from previts.demo.cast.puppets import Part, affine, build, joints
from previts.demo.scene import Actor, Light, Scene, render
from previts.demo.scenery.backgrounds import FAMILIES, paint
from previts.demo.sets import in9, world_images
from previts.demo.world import film, plan_videos
from previts.ingest import crawls
from previts.media import masks, normalisation, variants
from previts.saliency.priors import prior_map


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    return root, make_world(str(root), TINY)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def jpeg(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return image[..., ::-1]


# What is drawn


def square(size: float = 1.0, motion: Motion | None = None, **scene) -> Scene:
    half = 0.5
    part = Part("body", np.array([(-half, -half), (half, -half), (half, half), (-half, half)]), ((250, 40, 30),))
    puppet = build([part], 100, np.random.default_rng(0))
    motion = motion or Motion("pulse", (0.5, 0.5), (0.0, 0.0), 4.0)
    backdrop = np.full((200, 240, 3), 90, np.uint8)
    actor = Actor(puppet, size * 40, motion, shadow=False)
    return Scene(160, 120, 4.0, backdrop, (actor,), light=Light(noise=0), **scene)


def test_mask_of_a_square_is_its_closed_form():
    # 40 px a side around the middle of a frame of 160 x 120, before and after it grows by the pulse's 1 + 0.3 sin.
    np.testing.assert_allclose(masks.box(render(square(), 0.0).masks[0]), (60, 40, 100, 80), atol=1)
    assert render(square(), 0.0).masks[0].sum() == pytest.approx(1600, rel=0.04)
    assert render(square(), 0.75).masks[0].sum() == pytest.approx(1600 * 1.3**2, rel=0.04)


def test_what_stands_in_front_is_cut_out_of_the_mask():
    front = np.zeros((120, 160, 4), np.float32)
    front[:, 80:, :] = (10, 10, 10, 1)  # opaque from the middle to the right
    shown = render(square(foreground=front), 0.0)
    np.testing.assert_allclose(masks.box(shown.masks[0]), (60, 40, 80, 80), atol=1)
    assert (shown.image[60, 90] == 10).all()


def test_a_later_actor_hides_the_first():
    scene = square()
    both = replace(scene, actors=(scene.actors[0], replace(scene.actors[0], size=20.0)))
    first, second = render(both, 0.0).masks
    assert second.sum() == pytest.approx(400, rel=0.08)
    assert first.sum() == pytest.approx(1200, rel=0.08)
    assert not (first & second).any()


def test_the_camera_moves_backdrop_and_object_as_one_when_it_zooms():
    scene = square(camera=Camera(zoom=0.5))
    # zoom at half of the video: 1 + 0.25 * (1 - cos(0.8 pi)), at which the pulse has turned 4/6 of a cycle.
    zoom = 1 + 0.25 * (1 - np.cos(2 * np.pi * 0.5 * 0.8))
    pulse = 1 + 0.3 * np.sin(2 * np.pi * 2 / 3)
    assert render(scene, 2.0).masks[0].sum() == pytest.approx(1600 * (zoom * pulse) ** 2, rel=0.04)


def test_a_joint_hangs_on_its_turned_parent():
    outline = np.array([(0, 0), (1, 0), (1, 1)])
    parts = [
        Part("hand", outline, ((0, 0, 0),), parent="arm", joint=(0, 2)),
        Part("arm", outline, ((0, 0, 0),), rest=np.pi / 2),
    ]
    hand, arm = joints(parts, 0.0)
    np.testing.assert_allclose(hand @ (0, 0, 1), (-2, 0, 1), atol=1e-12)  # a quarter turn takes +y to -x
    np.testing.assert_allclose(arm, affine(0, 0, np.pi / 2), atol=1e-12)
    with pytest.raises(ValueError, match="nobody"):
        joints([Part("arm", outline, ((0, 0, 0),), parent="nobody")], 0.0)


@pytest.mark.parametrize("kind", ["dog", "butterfly", "guitar", "goldfish"])
def test_hiding_the_object_changes_the_frame_only_where_its_mask_is(kind):
    scene = compose(3, f"difference/{kind}", Shot(kind, "street", "walk", 224, 168, 4.0))
    # A shadow falls beside the object, outside its mask: it is left out here. Light and grain are the same in both.
    scene = replace(scene, actors=(replace(scene.actors[0], shadow=False),), blur=0.0)
    for time in (0.0, 1.3, 2.9):
        shown, hidden = render(scene, time), render(scene, time, hidden=frozenset({0}))
        changed = (shown.image != hidden.image).any(2)
        mask = shown.masks[0].astype(np.uint8)
        assert mask.any()
        assert not hidden.masks[0].any()
        assert not changed[cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0].any()
        assert changed[mask == 1].mean() > 0.98


def test_every_kind_and_family_can_be_drawn_and_differs_from_the_others():
    portraits = {}
    for kind, shape in KINDS.items():
        puppet = build(shape(np.random.default_rng(1)), 60, np.random.default_rng(1))
        assert 0.08 < puppet.area < 1.2, kind
        portraits[kind] = puppet.area
    assert len(set(portraits.values())) == len(KINDS)
    means = [paint(family, 60, 80, np.random.default_rng(2)).mean((0, 1)) for family in FAMILIES]
    distances = [np.abs(a - b).sum() for i, a in enumerate(means) for b in means[:i]]
    assert min(distances) > 5
    assert {kind for kinds in CLASSES.values() for kind in kinds} <= set(KINDS)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_moves_smoothly_within_the_frame(action):
    motion = Motion(action, (0.5, 0.5), (0.2, 0.15), 5.0)
    poses = [motion.pose(time) for time in np.arange(0, 5, 1 / 25)]
    places = np.array([(pose.x, pose.y) for pose in poses])
    assert (places > 0.2).all()
    assert (places < 0.8).all()
    assert np.abs(np.diff(places, axis=0)).max() < 0.05  # of the frame, in a 25th of a second
    state = np.array([(pose.x, pose.y, pose.scale, pose.angle, pose.squash) for pose in poses])
    assert np.ptp(state, axis=0).max() > 0.1


# The crawl


def test_a_second_world_of_the_same_seed_has_the_same_bytes_on_any_store(world):
    root, counts = world
    assert make_world("memory://demo-world", TINY) == counts
    store = fsspec.filesystem("memory")
    again = {path.removeprefix("/demo-world/"): store.cat_file(path) for path in store.find("/demo-world")}
    store.rm("/demo-world", recursive=True)
    first = files(root)
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_another_seed_is_another_world():
    first, second = (film(config, plan_videos(config)[0])[0] for config in (TINY, replace(TINY, seed=1)))
    assert (first.image != second.image).mean() > 0.5


def test_the_crawl_can_be_read_and_its_masks_fit_its_videos(world):
    root, counts = world
    items = crawls.read_crawl(str(root / "crawl.csv"))
    assert len(items) == counts["videos"] + counts["bad_items"]
    plans = {plan.video_id: plan for plan in plan_videos(TINY)}
    for item in items[: counts["videos"]]:
        frames = decode_file(item.url)
        exact = read_masks(str(root / "masks" / f"{item.video_id}.npz"))
        assert exact.shape == frames.shape[:3]
        assert item.label == plans[item.video_id].label
        rendered = film(TINY, plans[item.video_id])
        np.testing.assert_array_equal(exact, [frame.masks[0] for frame in rendered])
        assert np.abs(frames[0].astype(float) - rendered[0].image).mean() < 8  # H.264 loses a little
    facts = json.loads((root / "scenes.json").read_text())
    assert [fact["video_id"] for fact in facts] == [item.video_id for item in items[: counts["videos"]]]


def test_the_bad_items_of_the_crawl_fail_for_a_reason(world, tmp_path):
    root, _ = world
    bad = [item for item in crawls.read_crawl(str(root / "crawl.csv")) if item.video_id.startswith("bad_")]
    assert len(bad) == 3
    for item in bad:
        with pytest.raises(errors.VideoError):
            normalisation.normalise(item.url, str(tmp_path / "clip.mp4"), experiment.VideoConfig(), None, None)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, 1.0])
def test_backgrounds_go_with_the_class_as_often_as_configured(correlation):
    plans = plan_videos(replace(TINY, videos=900, background_correlation=correlation))
    homes = np.mean([plan.shot.family == plan.home for plan in plans])
    # Four standard deviations of a share of 900 draws; 0 and 1 are exact.
    assert homes == pytest.approx(correlation, abs=4 * np.sqrt(correlation * (1 - correlation) / 900) + 1e-12)
    away = [plan.shot.family for plan in plans if plan.shot.family != plan.home]
    if correlation < 1:
        assert set(away) == set(FAMILIES)


def test_objects_leave_and_arrive_as_planned():
    config = replace(TINY, videos=18)
    plans = plan_videos(config)
    seen = {
        plan.shot.visit: [frame.masks[0].any() for frame in film(config, plan)]
        for plan in plans
        if plan.shot.visit != "stays"
    }
    assert seen.keys() == {"leaves", "arrives"}
    assert seen["leaves"][0]
    assert not all(seen["leaves"])
    assert not seen["arrives"][0]
    assert seen["arrives"][-1]
    assert len({(plan.shot.width, plan.shot.height) for plan in plans}) == 3
    assert {plan.fps for plan in plans} == {12.0, 25.0}


@pytest.mark.slow
def test_the_object_is_what_robust_background_detection_finds_in_most_videos():
    config = WorldConfig()
    found, areas, cut = [], [], []
    for plan in plan_videos(config)[::2]:
        if plan.shot.visit == "arrives":
            continue
        frame = render(compose(config.seed, f"video/{plan.video_id}", plan.shot), 0.0)
        best = masks.components(prior_map("rbd", frame.image) > 0.5, 10)
        found.append(bool(best) and masks.iou(best[0], frame.masks[0]) >= 0.5)
        areas.append(frame.masks[0].mean())
        edge = frame.masks[0].copy()
        edge[1:-1, 1:-1] = False
        cut.append(edge.any())
    assert np.mean(found) >= 0.6
    assert np.mean(np.array(areas) > 0.06) > 0.9
    assert max(areas) < 0.3
    assert np.mean(cut) < 0.15


# The labelled sets, read by others' readers


def test_voc_is_read_by_torchvision_and_its_lists_agree_with_its_boxes(world):
    root = world[0] / "datasets" / "voc"
    sets = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    for image_set in ("train", "val", "trainval", "test"):
        data = VOCDetection(str(root), year="2007", image_set=image_set, download=False)
        names = (sets / f"{image_set}.txt").read_text().split()
        assert len(data) == len(names) > 0
        truth = {}
        for name, (image, target) in zip(names, data, strict=True):
            annotation = target["annotation"]
            assert (int(annotation["size"]["width"]), int(annotation["size"]["height"])) == image.size
            for item in annotation["object"]:
                box = [int(item["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                assert 1 <= box[0] < box[2] <= image.size[0]
                assert 1 <= box[1] < box[3] <= image.size[1]
                key = (item["name"], name)
                truth[key] = max(truth.get(key, 0), 1 - int(item["difficult"]))
        for label in world_images.VOC_NAMES:
            lines = [line.split() for line in (sets / f"{label}_{image_set}.txt").read_text().splitlines()]
            assert [name for name, _ in lines] == names
            assert [int(sign) for _, sign in lines] == [truth.get((label, name), -1) for name in names]
    train, val, trainval = (set((sets / f"{name}.txt").read_text().split()) for name in ("train", "val", "trainval"))
    assert train | val == trainval
    assert not train & val


def test_voc_boxes_hold_the_object(world):
    # The dominant colour of a car or a bus lies in its box: the picture changes strongly across the box's sides.
    config = TINY
    still = world_images.take(config, "box", ("car",), "sky", size=(200, 160), split="train")
    text = ElementTree.fromstring(world_images._voc_xml("000001", still, [False]))
    box = [int(text.findtext(f"object/bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
    rows, columns = np.nonzero(still.masks[0])
    assert box == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]  # VOC counts from 1, inclusive


def test_imagenet_and_in9_are_image_folders_of_nine_classes(world):
    datasets = world[0] / "datasets"
    for split, count in (("train", TINY.imagenet_train), ("val", TINY.imagenet_val)):
        folder = ImageFolder(str(datasets / "imagenet" / split))
        assert folder.classes == sorted(world_images.WNIDS.values())
        assert np.bincount(folder.targets).tolist() == [count] * 9
    for variant in (*variants.VARIANTS, "fg_mask"):
        folder = ImageFolder(str(datasets / "in9" / variant / "val"))
        assert folder.classes[:2] == ["00_dog", "01_bird"]
        assert folder.classes[8] == "08_fish"
        assert np.bincount(folder.targets).tolist() == [TINY.in9_val] * 9
    assert len(ImageFolder(str(datasets / "in9" / "train" / "original"))) == 9 * TINY.in9_train


def test_in9_variants_are_what_their_names_say():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (12, 10, 3), dtype=np.uint8)
    mask = np.zeros((12, 10), bool)
    mask[7:10, 3:6] = True
    mask[7, 3] = False  # the box reaches beyond the shape
    inside = np.zeros_like(mask)
    inside[7:10, 3:6] = True
    assert (variants.only_fg(image, mask)[mask] == image[mask]).all()
    assert not variants.only_fg(image, mask)[~mask].any()
    assert (variants.no_fg(image, mask)[~mask] == image[~mask]).all()
    assert not variants.no_fg(image, mask)[mask].any()
    assert (variants.only_bg_b(image, mask)[~inside] == image[~inside]).all()
    assert not variants.only_bg_b(image, mask)[inside].any()
    tiled = variants.only_bg_t(image, mask)
    assert (tiled[~inside] == image[~inside]).all()
    assert (tiled[7:10, 3:6] == image[0:3, 3:6]).all()  # the strip above (7 rows of 10) is the largest
    for turns in (1, 2, 3):  # whichever side the strip is on, it comes from the picture
        turned = variants.only_bg_t(np.rot90(image, turns), np.rot90(mask, turns))
        assert {tuple(pixel) for pixel in turned.reshape(-1, 3)} <= {tuple(pixel) for pixel in image[~inside]}
    assert not variants.only_bg_t(image, np.ones_like(mask)).any()  # the box is the whole picture
    other = np.full_like(image, 7)
    assert (variants.mixed(image, mask, other)[mask] == image[mask]).all()
    assert (variants.mixed(image, mask, other)[~mask] == 7).all()


def test_in9_files_hold_the_variants_and_mix_the_classes_that_they_should(world):
    root = world[0] / "datasets" / "in9"
    rows = [line.split(",") for line in (root / "index.csv").read_text().splitlines()[1:]]
    names = list(CLASSES)
    for split, variant, name, key, _, source in rows:
        if split == "train" or variant == "original":
            assert not source
            continue
        place = names.index(name)
        expected = {"mixed_same": {place}, "mixed_next": {(place + 1) % 9}, "mixed_rand": set(range(9))}[variant]
        source_place = names.index(source.split("_")[0])
        assert source_place in expected
        assert variant != "mixed_same" or source != key
        label = in9.folder(name)
        mask = cv2.imread(str(root / "fg_mask" / "val" / label / f"{key}.png"), cv2.IMREAD_GRAYSCALE)
        assert set(np.unique(mask)) == {0, 255}
        original = jpeg(root / "original" / "val" / label / f"{key}.jpg").astype(float)
        mix = jpeg(root / variant / "val" / label / f"{key}.jpg").astype(float)
        back = jpeg(root / "only_bg_t" / "val" / in9.folder(names[source_place]) / f"{source}.jpg").astype(float)
        core = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
        far = cv2.dilate(mask, np.ones((17, 17), np.uint8)) == 0
        assert np.abs(mix - original)[core].mean() < 6  # JPEG
        assert np.abs(mix - back)[far].mean() < 6
        assert np.abs(jpeg(root / "only_fg" / "val" / label / f"{key}.jpg").astype(float))[far].mean() < 2
    assert sum(row[1] == "mixed_rand" for row in rows) == 9 * TINY.in9_val


def test_coco_polygons_cover_what_area_and_box_say(world):
    root = world[0] / "datasets" / "coco"
    for split, count in (("train", TINY.coco_train), ("val", TINY.coco_val)):
        document = json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())
        images = {image["id"]: image for image in document["images"]}
        assert len(images) == count
        categories = {category["id"] for category in document["categories"]}
        for image in images.values():
            pixels = jpeg(root / f"{split}2017" / image["file_name"])
            assert pixels.shape[:2] == (image["height"], image["width"])
            assert image["file_name"] == f"{image['id']:012d}.jpg"
        for item in document["annotations"]:
            image = images[item["image_id"]]
            assert item["category_id"] in categories
            raster = np.zeros((image["height"] * 4, image["width"] * 4), np.uint8)
            for polygon in item["segmentation"]:
                cv2.fillPoly(raster, [np.round(np.array(polygon).reshape(-1, 2) * 4 - 0.5).astype(np.int32)], 1)
            # Holes (between legs, say) are filled: a polygon cannot express them.
            assert 0.95 * item["area"] <= raster.sum() / 16 <= 1.7 * item["area"]
            rows, columns = np.nonzero(raster)
            x, y, width, height = item["bbox"]
            extent = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / 4
            np.testing.assert_allclose(extent, (x, y, x + width, y + height), atol=1)


def test_davis_lists_frames_that_exist_with_binary_masks(world):
    root = world[0] / "datasets" / "davis"
    lines = (root / "ImageSets" / "480p" / "val.txt").read_text().splitlines()
    assert len(lines) == TINY.davis_sequences * TINY.davis_frames
    for line in lines:
        image, mask = line.split(" ")
        annotation = cv2.imread(str(root) + mask, cv2.IMREAD_UNCHANGED)
        assert annotation.shape == jpeg(Path(str(root) + image)).shape[:2]
        assert set(np.unique(annotation)) <= {0, 255}
    assert lines[0].endswith("/00000.png")


def test_ucf101_lists_and_clips(world):
    root = world[0] / "datasets" / "ucf101"
    classes = dict(line.split()[::-1] for line in (root / "ucfTrainTestlist" / "classInd.txt").read_text().splitlines())
    assert list(classes) == sorted(classes)
    for split in ("01", "02", "03"):
        train = [
            line.split() for line in (root / "ucfTrainTestlist" / f"trainlist{split}.txt").read_text().splitlines()
        ]
        test = (root / "ucfTrainTestlist" / f"testlist{split}.txt").read_text().split()
        assert all(classes[path.split("/")[0]] == number for path, number in train)
        assert {path.split("/")[0] for path in test} == set(classes)
        assert not {path for path, _ in train} & set(test)
        for path in [*test, *(path for path, _ in train)]:
            assert decode_file(str(root / "UCF-101" / path)).shape == (TINY.ucf_frames, 120, 160, 3)


def test_jhmdb_frames_masks_and_splits(world):
    root = world[0] / "datasets" / "jhmdb"
    actions = sorted(path.name for path in (root / "Rename_Images").iterdir())
    assert len(actions) == TINY.action_classes
    for action in actions:
        clips = sorted((root / "Rename_Images" / action).iterdir())
        roles = dict(line.split() for line in (root / "splits" / f"{action}_test_split1.txt").read_text().splitlines())
        assert roles.keys() == {f"{clip.name}.avi" for clip in clips}
        assert set(roles.values()) == {"1", "2"}
        for clip in clips:
            frames = sorted(clip.glob("*.png"))
            assert [frame.stem for frame in frames] == [f"{number:05d}" for number in range(1, TINY.jhmdb_frames + 1)]
            puppet = loadmat(root / "puppet_mask" / action / clip.name / "puppet_mask.mat")["part_mask"]
            assert puppet.shape == (*jpeg(frames[0]).shape[:2], len(frames))
            assert puppet.dtype == np.uint8
            assert puppet.any((0, 1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background_correlation": 1.2}, "background_correlation"),
        ({"width": 225}, "even"),
        ({"action_classes": 9}, "action_classes"),
        ({"in9_val": 1}, "in9_val at least 2"),
        ({"ucf_clips": 2}, "ucf_clips"),
        ({"jhmdb_clips": 3}, "jhmdb_clips = 3"),
    ],
)
def test_sizes_that_make_no_world_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
