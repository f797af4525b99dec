"""Converts or rechunks a volume of any format into OME-Zarr (or precomputed), in bounded memory.

    emsam ingest raw.npy em.zarr --voxel_size=40,4,4
    emsam ingest labels.h5/volumes/labels labels.zarr --pyramid=mode

Reads SRC, a path or URL, shard by shard. Stopped at any moment, the same command resumes; nothing opens DST before it
is whole.
"""

import sys
from typing import get_args

import numpy as np

from emsam_jax.blocks import stopping_on_signals
from emsam_jax.command_line import FLAGS, define_arguments, define_zyx, flags, group, run
from emsam_jax.errors import UserError
from emsam_jax.storage import normalise, set_cache_limit
from emsam_jax.volumes.axes import Channel
from emsam_jax.volumes.ingest.conversion import ingest
from emsam_jax.volumes.layout import Format
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.verify import check_present


def define_flags() -> None:
    define_arguments("SRC", "DST")
    with group("Input"):
        flags.DEFINE_integer("level", 0, "Pyramid level of the source; 0 is the finest.")
        flags.DEFINE_string("channel", None, "Channel of the source, `N|all`.")
        define_zyx("voxel_size", float, "Voxel size of the source, `z,y,x` in nm, in place of its metadata's.")
        define_zyx("offset", float, "Position of the source's first voxel, `z,y,x` in nm.")
        flags.DEFINE_boolean("allow_gaps", False, "Fill sections that are missing from a numbered folder with 0.")
        flags.DEFINE_integer("cache_mib", 256, "Cache limit of the source's chunks in MiB.")
    with group("Output"):
        flags.DEFINE_enum("format", "ome-zarr", get_args(Format), "Format of the destination.")
        define_zyx("chunk", int, "Chunk size, `z,y,x` in voxels; by default from shape and voxel size.")
        define_zyx("shard", int, "Shard size, `z,y,x` in voxels, a multiple of the chunk.")
        flags.DEFINE_enum("pyramid", None, ["mean", "mode"], "Add coarser levels: mean for raw, mode for labels.")
        flags.DEFINE_boolean("overwrite", False, "Replace a volume that this software wrote at DST.")
        flags.DEFINE_boolean("check_room", True, "Refuse a volume larger than DST's disk or this memory.")
    with group("Resuming"):
        flags.DEFINE_boolean("check", True, "Compare finished shards with their checksums; --nocheck trusts them.")


def main(arguments: list[str]) -> None:
    url, destination = arguments
    set_cache_limit(FLAGS.cache_mib << 20)
    source = open_volume(
        url,
        level=FLAGS.level,
        channel=_channel(FLAGS.channel),
        voxel_size_zyx=FLAGS.voxel_size,
        offset_zyx=FLAGS.offset,
        allow_gaps=FLAGS.allow_gaps,
    )
    for warning in check_present(source):
        print(f"ingest: {warning}", file=sys.stderr)
    if not source.voxel_size_known:
        raise UserError(f"{source.url} does not know its voxel size; give it as --voxel_size=z,y,x in nm.")
    with stopping_on_signals():
        volume = ingest(
            source,
            normalise(destination),
            format=FLAGS.format,
            chunk=FLAGS.chunk,
            shard=FLAGS.shard,
            pyramid=FLAGS.pyramid,
            overwrite=FLAGS.overwrite,
            check=FLAGS.check,
            check_room=FLAGS.check_room,
            progress=True,
        )
    print(f"{volume.url}: {volume.shape} {np.dtype(volume.dtype).name}, {volume.voxel_size_zyx} nm (z, y, x)")


def _channel(text: str | None) -> Channel:
    if text is None or text == "all":
        return text
    if not text.isdecimal():
        raise UserError(f"--channel: expected a number from 0 or all, found {text!r}.")
    return int(text)


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
