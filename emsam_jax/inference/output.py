"""Where a prediction is written: the affinities, and below them the coarse map and the ledger."""

import numpy as np

from emsam_jax.blocks import DROPPED, SKIPPED, Block, Entry, check_room, is_intact, plan_blocks, write_block
from emsam_jax.blocks.ledger import read_facts
from emsam_jax.inference.settings import Prediction
from emsam_jax.volumes import Box, Specimen, Volume, VolumeError, open_volume
from emsam_jax.volumes.create import create_array, occupied, write_image_metadata
from emsam_jax.volumes.destination import PREDICTION, claim
from emsam_jax.volumes.layout import Layout, chunk_for, plan_layout, shard_for, shard_within
from emsam_jax.volumes.location import normalise

STAGE = "predict"


class Output:
    """One or two arrays [c, z, y, x], written block by block."""

    def __init__(self, url: str, specimen: Specimen, settings: Prediction, region: Box, channels: int):
        self.url = normalise(url)
        raw = specimen.raw
        self._sources = [volume.url for volume in (raw, specimen.mask) if volume is not None]
        chunk = chunk_for(region.shape, raw.voxel_size_zyx)
        block = settings.block_shape(chunk, shard_for(region.shape, chunk))
        shard = shard_within(block, chunk, region.shape)
        self.plan = plan_blocks(raw.box, region, block, shard)
        offset = [
            corner + first * size
            for corner, first, size in zip(raw.offset_zyx, region.start, raw.voxel_size_zyx, strict=True)
        ]
        urls = [self.url, f"{self.url}/coarse"][: 1 + settings.coarse]
        shape = (channels, *region.shape)
        self._layouts: list[Layout] = [
            plan_layout(u, shape, settings.dtype, raw.voxel_size_zyx, offset_zyx=offset, chunk=chunk, shard=shard)
            for u in urls
        ]
        self._arrays: list[Volume] = []

    @property
    def ledger_url(self) -> str:
        return ledger_url(self.url)

    def claim(self) -> None:
        if not occupied(self.url):
            check_room(self.plan, self.url)
        if claim(self.url, PREDICTION, self._sources) and occupied(self.url) and not read_facts(self.ledger_url, STAGE):
            raise VolumeError(f"{self.url}: there is a volume already, but no ledger of it; choose another place.")

    def open(self) -> None:
        """Creates what is not there yet."""
        self._arrays = [create_array(layout, resume=True) for layout in self._layouts]
        for layout in self._layouts:
            write_image_metadata(layout)

    def write(self, block: Block, values: np.ndarray) -> str:
        """The checksums of its maps."""
        box = self.plan.output_box(block)
        parts = np.split(values, len(self._arrays))
        return ",".join(write_block(array, box, part) for array, part in zip(self._arrays, parts, strict=True))

    def is_intact(self, block: Block, entry: Entry) -> bool:
        box = self.plan.output_box(block)
        if entry.checksum in (SKIPPED, DROPPED):
            return True
        expected = entry.checksum.split(",")
        return len(expected) == len(self._arrays) and all(
            is_intact(array, box, one) for array, one in zip(self._arrays, expected, strict=True)
        )

    def reopen(self) -> Volume:
        return open_volume(self.url, channel="all")


def ledger_url(url: str) -> str:
    return f"{normalise(url)}/ledger"
