"""Writes a prediction: the affinities, and below them the coarse map and the ledger, with its facts."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from emsam_jax.blocks import (
    DROPPED,
    SKIPPED,
    Block,
    Entry,
    Plan,
    check_room,
    content_of,
    is_intact,
    plan_blocks,
    read_facts,
    write_block,
)
from emsam_jax.errors import UserError
from emsam_jax.inference.programs import AffinityModel
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.symmetry import parse_symmetries
from emsam_jax.storage import PREDICTION, claim, normalise
from emsam_jax.volumes import (
    Box,
    Layout,
    Specimen,
    Volume,
    Voxel,
    chunk_for,
    create_array,
    occupied,
    open_volume,
    plan_layout,
    shard_for,
    shard_within,
    write_image_metadata,
)

_NOT_THE_RESULT = ("block", "batch", "encode_once", "check", "progress")  # these change how, not what
STAGE = "predict"


def facts_of(
    model: AffinityModel, specimen: Specimen, settings: Prediction, plan: Plan, **more: str | int
) -> dict[str, Any]:
    """Returns a prediction's settings as flat JSON."""
    grid = settings.grid()
    chosen = {k: v for k, v in dataclasses.asdict(settings).items() if k not in _NOT_THE_RESULT}
    return {
        "input": specimen.raw.url,
        "input_shape": list(specimen.raw.shape),
        "input_dtype": specimen.raw.dtype.name,
        "input_content": content_of(specimen.read_raw, plan.region),
        "input_range": list(specimen.intensity_range),
        "input_inverted": specimen.intensity.invert,
        "mask": specimen.mask.url if specimen.mask else "",
        "region": str(plan.region),
        "blocks": list(plan.block),
        "model": fingerprint(model),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()},
        "window": list(grid.window),
        "stride": list(grid.stride),
        "symmetries": [str(symmetry) for symmetry in parse_symmetries(settings.symmetries)],
        **more,
    }


def fingerprint(model: AffinityModel) -> str:
    """Hashes the names, types and values of all parameters."""
    found = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        values = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


class Output:
    """One or two arrays [c, z, y, x] with the offsets of their channels, written block by block."""

    def __init__(self, url: str, specimen: Specimen, settings: Prediction, region: Box, offsets: Sequence[Voxel]):
        self.url = normalise(url)
        raw = specimen.raw
        self._sources = [volume.url for volume in (raw, specimen.mask) if volume is not None]
        chunk = chunk_for(region.shape, raw.voxel_size_zyx)
        block = settings.block_shape(chunk, shard_for(region.shape, chunk))
        shard = shard_within(block, chunk, region.shape)
        self.plan = plan_blocks(raw.box, region, block, shard)
        corner = [
            first + start * size
            for first, start, size in zip(raw.offset_zyx, region.start, raw.voxel_size_zyx, strict=True)
        ]
        self._layouts: list[Layout] = [
            plan_layout(
                url,
                (len(offsets), *region.shape),
                settings.dtype,
                raw.voxel_size_zyx,
                offset_zyx=corner,
                chunk=chunk,
                shard=shard,
                offsets=offsets,
            )
            for url in [self.url, f"{self.url}/coarse"][: 1 + settings.coarse]
        ]
        self._arrays: list[Volume] = []

    @property
    def ledger_url(self) -> str:
        return ledger_url(self.url)

    def claim(self) -> None:
        if not occupied(self.url):
            check_room(self.plan, self.url)
        if claim(self.url, PREDICTION, self._sources) and occupied(self.url) and not read_facts(self.ledger_url, STAGE):
            raise UserError(f"{self.url}: there is a volume already, but no ledger of it; choose another place.")

    def open(self) -> None:
        """Opens the arrays, and creates those that are missing."""
        self._arrays = [create_array(layout, resume=True) for layout in self._layouts]
        for layout in self._layouts:
            write_image_metadata(layout)

    def write(self, block: Block, values: np.ndarray) -> str:
        """Writes a block of both maps and returns their checksums."""
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
