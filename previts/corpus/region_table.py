"""Salient regions: the table of a shard, one row for each key frame.

`saliency` writes these tables (`saliency.predict`); `track` reads them.
"""

from dataclasses import dataclass

import numpy as np

from previts.media.masks import Mask, decode_rle
from previts.storage import files, tables


@dataclass(frozen=True)
class SaliencyRecord:
    """The salient regions of one key frame, masks at the resolution of the video as `masks.encode_rle` writes them.

    A saliency map gives one region, which may fall into several components, or none; a detector one for each object.
    `agreement` says how alike the handcrafted priors are on this frame, where they were compared; see `agreement`.
    """

    video_id: str
    frame: int
    height: int
    width: int
    regions: list[list[int]]
    agreement: float | None

    def masks(self) -> Mask:
        """Return the regions as masks (regions, height, width); there may be none."""
        masks_RHW = np.zeros((len(self.regions), self.height, self.width), dtype=np.bool_)
        for region, counts in enumerate(self.regions):
            masks_RHW[region] = decode_rle(counts, self.height, self.width)
        return masks_RHW


def is_done(saliency_uri: str, shard: int) -> bool:
    """Return whether a shard's masks are written."""
    return files.exists(files.join(saliency_uri, tables.table_name(shard)))


def read_shard(saliency_uri: str, shard: int) -> list[SaliencyRecord]:
    """Return the rows of a shard: all key frames of a video one after the other, videos in the order of the shard."""
    return tables.read_records(files.join(saliency_uri, tables.table_name(shard)), SaliencyRecord)
