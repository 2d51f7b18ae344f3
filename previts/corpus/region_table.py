"""The table of the salient regions of a shard: one row for each key frame of its videos.

PreViTS section 3.2: the object of a video is chosen among its salient regions. The stage `saliency` writes these tables
(`saliency.predict`), and the stage `track` reads them.
"""

from dataclasses import dataclass

import numpy as np

from previts.errors import InputError
from previts.media.masks import Mask, decode_rle
from previts.storage import files, tables
from previts.storage.tables import Count, Share, Side


@dataclass(frozen=True)
class SaliencyRecord:
    """The salient regions of one key frame.

    Attributes:
        regions: Run lengths of the mask of each region, at the size of the video, as `masks.encode_rle` writes them. A
            saliency map gives no region or one, which may have several components. A detector gives one for each
            object.
        agreement: How similar the maps of the handcrafted priors are on this frame (`saliency.priors.mean_agreement`);
            None if they were not compared.
    """

    video_id: str
    frame: Count
    height: Side
    width: Side
    regions: list[list[Count]]
    agreement: Share | None

    def masks(self) -> Mask:
        """Return the regions as masks (regions, height, width); there may be none."""
        masks_RHW = np.zeros((len(self.regions), self.height, self.width), dtype=np.bool_)
        for region, counts in enumerate(self.regions):
            masks_RHW[region] = decode_rle(counts, self.height, self.width)
        return masks_RHW


def is_done(saliency_uri: str, shard: int) -> bool:
    """Return whether the table of a shard is written."""
    return files.exists(files.join(saliency_uri, tables.table_name(shard)))


def read_shard(saliency_uri: str, shard: int) -> list[SaliencyRecord]:
    """Return the rows of a shard: videos in the order of the shard, and the key frames of each in order of time.

    Raises:
        InputError: If the table is missing or damaged.
    """
    uri = files.join(saliency_uri, tables.table_name(shard))
    rows = tables.read_records(uri, SaliencyRecord)
    for row in rows:
        if any(sum(counts) != row.height * row.width for counts in row.regions):
            raise InputError(
                f"{uri}: the regions of frame {row.frame} of video {row.video_id!r} do not have "
                f"{row.height} x {row.width} pixels; delete it, {tables.REMEDY}"
            )
    return rows
