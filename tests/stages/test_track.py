"""The verb `track` on a small synthetic world. Oracle: the exact masks of the world's objects."""

from small_verbs import SMALL

from previts import demo, stages
from previts.corpus import index_table, tube_table
from previts.media import masks
from previts.storage import files, folders


def test_tubes_cover_the_objects_of_the_world(made, world):
    index = index_table.read_index(made["index"])
    scores = []
    for row in index:
        truth = demo.read_masks(files.join(str(world), "crawls", "masks", f"{row.video_id}.npz"))
        tube = tube_table.read_tube(made["tubes"], row)
        step = truth.shape[0] / row.num_frames
        for frame in range(row.num_frames):
            mask = tube.mask(frame)
            if mask.any() and mask.shape == truth.shape[1:]:
                scores.append(masks.iou(mask, truth[min(int(frame * step), truth.shape[0] - 1)]))
    assert len(scores) > 20
    assert sum(scores) / len(scores) > 0.4


def test_the_motion_is_part_of_the_address(made):
    chosen = [*SMALL, "track.motion=drift"]
    drifting = stages.track(made["videos"], made["saliency"], made["root"], "demo", chosen)
    assert drifting != made["tubes"]
    assert folders.read_manifest(drifting).decided["track"]["motion"] == "drift"
