"""The verb `saliency` on a small synthetic world. Oracle: the number of frames of each video."""

from previts.corpus import video_table
from previts.storage import folders


def test_the_counts_include_every_key_frame(made):
    frames = [row.num_frames for shard in range(3) for row in video_table.read_shard(made["videos"], shard)]
    counts = folders.read_manifest(made["saliency"]).counts
    assert counts == {"shards": 3, "key_frames": sum(-(-number // 4) for number in frames)}
