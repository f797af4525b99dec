"""Converts or rechunks a volume of any format into OME-Zarr (or precomputed), in bounded memory.

    python -m emsam_jax.volumes.ingest SRC DST

Stopped at any moment, it goes on where it was when it is called again; until it is done, nothing opens DST.
"""

import functools
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorstore as ts
from absl import app, flags
from tqdm import tqdm

from emsam_jax.volumes.axes import Channel
from emsam_jax.volumes.box import Box
from emsam_jax.volumes.context import set_cache_limit
from emsam_jax.volumes.create import create_array, occupied, write_image_metadata
from emsam_jax.volumes.errors import VolumeError, first_line
from emsam_jax.volumes.findings import check_present
from emsam_jax.volumes.flag_values import three, whole_numbers
from emsam_jax.volumes.layout import Layout, plan_layout
from emsam_jax.volumes.location import normalise, open_folder, read_key, write_key
from emsam_jax.volumes.open import UNFINISHED, open_volume
from emsam_jax.volumes.pyramid import Method, plan_levels, read_coarsened
from emsam_jax.volumes.volume import Volume

_Read = Callable[[Box], np.ndarray]
_IN_FLIGHT = 2  # shards that are read or written at once


def ingest(
    source: Volume,
    destination: str,
    *,
    format: str = "ome-zarr",  # noqa: A002
    chunk: tuple[int, int, int] | None = None,
    shard: tuple[int, int, int] | None = None,
    pyramid: Method | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Volume:
    """Copies shard by shard, two at a time. The source's box, sizes and dtype stay as they are.

    `pyramid` says how coarser levels are made, if they are wanted: of grey values by their mean, of ids by their mode.
    """
    layout = plan_layout(
        destination,
        source.shape,
        source.dtype,
        source.voxel_size_zyx,
        offset_zyx=source.offset_zyx,
        format=format,  # pyright: ignore[reportArgumentType]  # checked there
        chunk=chunk,
        shard=shard,
    )
    ledger = Ledger(layout, source, pyramid)
    done = ledger.find(overwrite)
    ledger.write(done)
    levels = plan_levels(layout) if pyramid else [layout]
    targets = [create_array(level, overwrite=not done, resume=bool(done)) for level in levels]
    reads: list[_Read] = [source.read]
    if pyramid:
        reads += [
            functools.partial(read_coarsened, *pair, method=pyramid) for pair in zip(targets, levels[1:], strict=False)
        ]
    boxes = [list(target.box.tiles(level.shard)) for target, level in zip(targets, levels, strict=True)]
    written = done
    with tqdm(total=sum(map(len, boxes)), initial=done, unit="shard", disable=not progress, file=sys.stderr) as bar:
        for read, target, own in zip(reads, targets, boxes, strict=True):
            for _ in _copied(read, target, own[done:]):
                written += 1
                ledger.write(written)
                bar.update()
            done = max(0, done - len(own))
    write_image_metadata(*levels)
    ledger.clear()
    return open_volume(destination, channel="all" if len(layout.shape) == 4 else None)


def _copied(read: _Read, target: Volume, boxes: list[Box]) -> Iterator[Box]:
    """Each box once it is on disk, in order; in the end all are."""
    writing: deque[tuple[Box, ts.WriteFutures]] = deque()
    for box in boxes:
        if len(writing) == _IN_FLIGHT:
            yield _finished(target, *writing.popleft())
        values = read(box)
        writing.append(
            (box, target.store[(..., *box.slices)].write(values, can_reference_source_data_indefinitely=True))
        )
    while writing:
        yield _finished(target, *writing.popleft())


def _finished(target: Volume, box: Box, future: ts.WriteFutures) -> Box:
    try:
        future.result()
    except ValueError as error:
        raise VolumeError(f"{target.url}: voxels {box} cannot be written: {first_line(error)}") from None
    return box


class Ledger:
    """How many shards, in order, are on disk, and of which conversion: one small file in the destination."""

    def __init__(self, layout: Layout, source: Volume, pyramid: Method | None):
        self.url, self._folder = layout.url, open_folder(layout.url)
        self._facts: dict[str, Any] = {
            "source": source.url,
            "format": layout.format,
            "shape": list(layout.shape),
            "dtype": layout.dtype.name,
            "voxel_size_zyx": list(layout.voxel_size_zyx),
            "offset_zyx": list(layout.offset_zyx),
            "chunk": list(layout.chunk),
            "shard": list(layout.shard),
            "pyramid": pyramid,
        }

    def find(self, overwrite: bool) -> int:
        """Shards that an earlier call has finished; refuses to touch another volume."""
        if overwrite:
            return 0
        content = read_key(self._folder, UNFINISHED)
        if content is None:
            if occupied(self.url):
                raise VolumeError(f"{self.url}: there is a volume already; choose another place or --overwrite.")
            return 0
        found = json.loads(content)
        for fact, value in self._facts.items():
            if found.get(fact) != value:
                raise VolumeError(
                    f"{self.url} holds an unfinished conversion whose {fact} is {found.get(fact)}, not {value}: "
                    "finish that one, or --overwrite."
                )
        return int(found["shards_done"])

    def write(self, shards_done: int) -> None:
        content = json.dumps(self._facts | {"shards_done": shards_done}, indent=2)
        write_key(self._folder, UNFINISHED, content.encode())

    def clear(self) -> None:
        write_key(self._folder, UNFINISHED, None)


FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_integer("level", 0, "Level of the source's pyramid; 0 is the finest.")
    flags.DEFINE_string("channel", None, 'One of the source\'s channels, or "all".')
    flags.DEFINE_list("voxel_size", [], "z,y,x in nm, instead of what the source says.")
    flags.DEFINE_list("offset", [], "z,y,x in nm, instead of what the source says.")
    flags.DEFINE_boolean("allow_gaps", False, "Sections that are missing from a numbered folder become 0.")
    flags.DEFINE_enum("format", "ome-zarr", ["ome-zarr", "precomputed"], "Of the destination.")
    flags.DEFINE_list("chunk", [], "z,y,x in voxels; chosen from shape and voxel size if left out.")
    flags.DEFINE_list("shard", [], "z,y,x in voxels, whole chunks.")
    flags.DEFINE_enum("pyramid", None, ["mean", "mode"], "Adds coarser levels: raw by mean, labels by mode.")
    flags.DEFINE_integer("cache_mib", 256, "Limit of the cache for the source's chunks.")
    flags.DEFINE_boolean("overwrite", False, "Replace what there is at DST.")


def main(arguments: list[str]) -> None:
    if len(arguments) != 3:
        raise app.UsageError("Expected SRC and DST.")
    try:
        set_cache_limit(FLAGS.cache_mib << 20)
        channel: Channel = FLAGS.channel if FLAGS.channel in (None, "all") else whole_numbers([FLAGS.channel])[0]
        source = open_volume(
            arguments[1],
            level=FLAGS.level,
            channel=channel,
            voxel_size_zyx=three(FLAGS.voxel_size, float),
            offset_zyx=three(FLAGS.offset, float),
            allow_gaps=FLAGS.allow_gaps,
        )
        for warning in check_present(source):
            print(f"ingest: {warning}", file=sys.stderr)
        if not source.voxel_size_known:
            raise VolumeError(f"{source.url} does not know its voxel size; give it as --voxel_size=z,y,x in nm.")
        chunk, shard = three(FLAGS.chunk, int), three(FLAGS.shard, int)
        volume = ingest(
            source,
            normalise(arguments[2]),
            format=FLAGS.format,
            chunk=chunk,
            shard=shard,
            pyramid=FLAGS.pyramid,
            overwrite=FLAGS.overwrite,
            progress=True,
        )
    except VolumeError as error:
        sys.exit(f"ingest: {error}")
    print(f"{volume.url}: {volume.shape} {np.dtype(volume.dtype).name}, {volume.voxel_size_zyx} nm (z, y, x)")


if __name__ == "__main__":
    define_flags()
    app.run(main)
