"""The verb `index` on a small synthetic world. Oracle: the tables of the videos and of the tubes."""

from previts.corpus import index_table, tube_table, video_table
from previts.storage import folders


def test_the_index_joins_each_usable_video_with_its_own_tube(made):
    index = index_table.read_index(made["index"])
    total = int(folders.read_manifest(made["videos"]).counts["shards"])
    videos = {row.video_id: row for shard in range(total) for row in video_table.read_shard(made["videos"], shard)}
    followed = {row.video_id: row for shard in range(total) for row in tube_table.read_shard(made["tubes"], shard)}
    assert [row.video_id for row in index] == sorted(name for name, row in videos.items() if row.status == "ok")
    for row in index:
        assert (row.offset, row.size, row.num_frames) == (
            videos[row.video_id].offset,
            videos[row.video_id].size,
            videos[row.video_id].num_frames,
        )
        tube = tube_table.read_tube(made["tubes"], row)
        assert tube.spans() == [tuple(span) for span in row.spans] or tube.spans() == row.spans
        assert row.spans == followed[row.video_id].spans
