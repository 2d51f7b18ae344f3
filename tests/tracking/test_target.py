"""The target and its tube. Oracles: blobs with a known path, and the expected mask of each frame."""

import numpy as np
import pytest
from blobs import HEIGHT, WIDTH, blob, follow

from previts.config.perception import TrackConfig
from previts.tracking.tracker import build_tube

ASSOCIATIONS = ("box", "mask")
NOTHING = np.zeros((HEIGHT, WIDTH), bool)


def assert_tube(tube, expected):
    assert len(tube.frame_keys) == len(expected)
    for frame, mask in enumerate(expected):
        np.testing.assert_array_equal(tube.mask(frame), mask, err_msg=f"frame {frame}")
    np.testing.assert_array_equal(tube.masks(range(len(expected))), np.stack(expected))


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_tube_stays_on_the_object_while_a_larger_distractor_passes_by(association):
    target = [blob(10 + 2 * frame, top=30) for frame in range(24)]
    # The distractor is larger, is absent in the first frame, moves the other way and passes 2 pixels above the object.
    passing = [blob(95 - 4 * frame, top=0, width=40, height=28) if frame else NOTHING for frame in range(24)]
    assert passing[10].sum() > target[10].sum()
    tube = follow([a | b for a, b in zip(target, passing, strict=True)], association=association)
    assert_tube(tube, target)
    assert tube.spans() == [[0, 24]]


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_the_largest_region_of_the_first_frame_is_the_object(association):
    # The other region grows and is larger from the second frame on. The choice does not change.
    masks = [blob(5, width=19 + 2 * frame) | blob(55) for frame in range(8)]
    assert masks[1][:, :50].sum() > masks[1][:, 50:].sum()
    tube = follow(masks, association=association)
    assert_tube(tube, [blob(55)] * 8)


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("max_age", [0, 1, 3])
def test_an_object_that_returns_within_max_age_is_matched_again(association, max_age):
    here = blob(40)
    tube = follow([here] * 4 + [NOTHING] * max_age + [here] * 3, association=association, max_age=max_age)
    assert_tube(tube, [here] * 4 + [NOTHING] * max_age + [here] * 3)
    late = follow([here] * 4 + [NOTHING] * (max_age + 1) + [here] * 3, association=association, max_age=max_age)
    assert_tube(late, [here] * 4 + [NOTHING] * (max_age + 4))
    assert late.spans() == [[0, 4]]


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_a_lost_object_is_never_replaced(association):
    tube = follow([blob(5)] * 3 + [blob(70)] * 20, association=association)
    assert_tube(tube, [blob(5)] * 3 + [NOTHING] * 20)


def test_without_an_object_in_the_first_frame_the_first_that_appears_is_the_target():
    tube = follow([NOTHING, NOTHING, blob(30), blob(32)])
    assert_tube(tube, [NOTHING, NOTHING, blob(30), blob(32)])
    assert tube.spans() == [[2, 4]]


def test_without_any_object_the_tube_is_empty():
    speck = np.zeros((HEIGHT, WIDTH), bool)
    speck[3:5, 3:7] = True  # 8 pixels
    for masks in ([NOTHING] * 3, [speck] * 3):
        tube = follow(masks, min_area=0.0)
        assert_tube(tube, [NOTHING] * 3)
        assert (tube.spans(), tube.tracked_frames(), tube.mean_area(), tube.key_counts) == ([], 0, 0.0, [])


def test_components_below_min_area_are_ignored():
    mask = blob(10, width=8, height=8) | blob(60, width=10, height=10)  # 48 and 84 pixels without the corner
    assert_tube(follow([mask], min_area=0.0), [blob(60, width=10, height=10)])
    assert follow([mask], min_area=84 / 6000).tracked_frames() == 1
    assert follow([mask], min_area=85 / 6000).tracked_frames() == 0


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_frames_between_key_frames_have_a_mask_only_if_both_are_matched(association):
    a, b, c = blob(40), blob(44), blob(46)
    tube = follow([a, b, NOTHING, c], every=4, num_frames=16, association=association)
    # Pair (0, 4): each frame has the nearer mask, frame 2 the earlier one. Key frame 8 has none, and 12 is single.
    assert_tube(tube, [a, a, a, b, b] + [NOTHING] * 7 + [c] + [NOTHING] * 3)
    assert tube.spans() == [[0, 5], [12, 13]]
    assert tube.tracked_frames() == 6


def test_key_frames_need_not_be_evenly_spaced():
    a, b, c = blob(40), blob(42), blob(44)
    tube = build_tube([a, b, c], [1, 2, 7], 9, TrackConfig())
    assert_tube(tube, [NOTHING, a, b, b, b, c, c, c, c])


def test_the_last_mask_is_used_to_the_end_only_after_a_matched_pair():
    a, b = blob(40), blob(44)
    assert_tube(follow([a, b], every=3, num_frames=6), [a, a, b, b, b, b])
    assert_tube(follow([a, NOTHING, b], every=3, num_frames=9), [a] + [NOTHING] * 5 + [b] + [NOTHING] * 2)
    assert_tube(follow([a, b, NOTHING], every=3, num_frames=9), [a, a, b, b] + [NOTHING] * 5)
    # The mask of a single key frame is not used for other frames.
    assert_tube(follow([a], num_frames=4), [a] + [NOTHING] * 3)


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_an_object_that_leaves_through_the_border_is_lost_and_the_border_frames_are_counted(association):
    # It leaves to the right: whole up to frame 3, cut by the border in frames 4 to 7, absent after that.
    walk = [blob(62 + 5 * frame) for frame in range(12)]
    assert [mask.any() for mask in walk] == [True] * 8 + [False] * 4
    tube = follow(walk, association=association, min_area=0.0)
    assert_tube(tube, walk)
    assert tube.lost_frame() == 8
    assert tube.border_share() == 4 / 8
    assert follow(walk[:8], association=association, min_area=0.0).lost_frame() is None
    assert follow([NOTHING] * 4).lost_frame() == 0
    assert follow([NOTHING] * 4).border_share() == 0.0
    # Another object that enters later does not change the tube.
    later = follow(walk + [blob(0)] * 20, association=association, min_area=0.0)
    assert (later.lost_frame(), later.spans()) == (8, tube.spans())


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_after_a_split_the_part_with_the_larger_overlap_is_the_target(association):
    whole = blob(30, width=40)
    pieces = [(blob(30 - step, width=26), blob(60 + step, width=10)) for step in range(6)]
    tube = follow([whole] * 3 + [left | right for left, right in pieces], association=association)
    assert_tube(tube, [whole] * 3 + [left for left, _ in pieces])


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_the_target_is_the_merged_region_during_a_merge_and_the_object_after_it(association):
    target, other = blob(20, width=30), blob(52, width=20)
    merged = target | other
    merged[30:34, 50:52] = True
    masks = [target | other] * 3 + [merged] * 3 + [target | other] * 3
    tube = follow(masks, association=association)
    assert_tube(tube, [target] * 3 + [merged] * 3 + [target] * 3)


def test_a_merged_region_that_matches_a_distractor_better_is_not_the_target():
    # The object is larger at first. Then the other region grows, until it is most of the merged region.
    target = blob(10, width=16)
    others = [blob(35 + 8 * step // 2, width=12 + 12 * step, top=2, height=24 + 6 * step) for step in range(3)]
    merged = others[-1] | blob(10, width=16)
    merged[30, 20:50] = True
    tube = follow([target | other for other in others] + [merged])
    assert_tube(tube, [target] * 3 + [NOTHING])


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_a_track_of_the_object_in_another_shape_does_not_take_its_match(association):
    # For two frames the object is a sliver that does not match, so the sliver starts a new track. When the object is
    # whole again, its overlap with the sliver's track is larger than with its own track, which waits further up.
    whole, sliver, again = blob(30, top=5, height=26), blob(30, top=30, height=28), blob(30, top=20, height=26)
    tube = follow([whole] * 3 + [sliver] * 2 + [again] * 3, association=association)
    assert_tube(tube, [whole] * 3 + [NOTHING] * 2 + [again] * 3)


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("min_hits", [0, 1, 2, 3])
def test_the_tube_starts_when_the_target_was_matched_min_hits_times_in_a_row(association, min_hits):
    here, flicker = blob(20), blob(70, width=25)
    withheld = max(0, min_hits - 1)
    tube = follow([here] * 6, association=association, min_hits=min_hits)
    assert_tube(tube, [NOTHING] * withheld + [here] * (6 - withheld))
    # A region that is the largest in a single frame is dropped if min_hits is 2 or more. Another target is chosen.
    tube = follow([here | flicker] + [here] * 6, association=association, min_hits=min_hits)
    if min_hits < 2:
        assert_tube(tube, [flicker] + [NOTHING] * 6)
    else:
        assert_tube(tube, [NOTHING] * (1 + withheld) + [here] * (6 - withheld))
    # After its start, the tube continues at the first match after a miss.
    tube = follow([here] * 4 + [NOTHING] + [here] * 2, association=association, min_hits=min_hits)
    assert_tube(tube, [NOTHING] * withheld + [here] * (4 - withheld) + [NOTHING] + [here] * 2)


def test_components_of_overlapping_regions_are_tracked_separately():
    small, large, bar = blob(5), blob(60, width=30), blob(8, top=45, height=10, width=60)
    regions = np.stack([small, large | small, bar])  # a detector's objects may overlap
    tube = follow([regions] * 3)
    assert_tube(tube, [max([small, large, bar], key=np.count_nonzero)] * 3)
    none = np.zeros((0, HEIGHT, WIDTH), bool)
    assert_tube(follow([none, regions[:1], none]), [NOTHING, small, NOTHING])


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_a_known_first_mask_selects_the_target(association):
    small, large = blob(8), blob(60, width=30)
    masks = [small | large] * 4
    assert_tube(follow(masks, association=association), [large] * 4)
    known = np.zeros_like(small)
    known[22:40, 10:26] = True
    tube = build_tube(masks, range(4), 4, TrackConfig(association=association), first=known)
    assert_tube(tube, [small] * 4)
    elsewhere = np.roll(blob(40), 38, axis=0)
    tube = build_tube(masks, range(4), 4, TrackConfig(association=association), first=elsewhere)
    assert_tube(tube, [NOTHING] * 4)
    with pytest.raises(ValueError, match="is empty"):
        build_tube(masks, range(4), 4, TrackConfig(association=association), first=NOTHING)


def test_both_associations_differ_where_boxes_and_pixels_disagree():
    # Two thin diagonals: their boxes are equal, and few of their pixels overlap.
    rows = np.arange(50)
    down, up = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    for thick in range(4):
        down[rows, rows + 20 + thick] = up[rows, 69 - rows + thick] = True
    assert_tube(follow([down, down, up]), [down, down, up])
    assert_tube(follow([down, down, up], association="mask"), [down, down, NOTHING])


@pytest.mark.parametrize(
    ("count", "key_frames", "num_frames"),
    [(0, [], 3), (1, [0, 1], 3), (2, [0], 3), (2, [0, 0], 3), (2, [1, 0], 3), (2, [0, 3], 3), (1, [-1], 3)],
)
def test_masks_that_do_not_fit_the_key_frames_are_refused(count, key_frames, num_frames):
    with pytest.raises(ValueError, match=r"key frame"):
        build_tube([blob(5)] * count, key_frames, num_frames, TrackConfig())


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one height and width"):
        build_tube([blob(5), blob(5)[:-1]], [0, 1], 2, TrackConfig())


@pytest.mark.parametrize("wrong", [{"iou_threshold": 1.1}, {"max_age": -1}, {"min_area": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackConfig(**wrong)
