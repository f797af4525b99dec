"""Converts or rechunks a volume of any format into OME-Zarr (or precomputed), in bounded memory.

    python -m emsam_jax.volumes.ingest SRC DST

Stopped at any moment, it goes on where it was when it is called again; until it is done, nothing opens DST.
"""

import sys

import numpy as np
from absl import app, flags

from emsam_jax.blocks import StoppedError, stopping_on_signals
from emsam_jax.errors import UserError
from emsam_jax.storage import normalise, set_cache_limit
from emsam_jax.volumes.axes import Channel
from emsam_jax.volumes.flag_values import three, whole_numbers
from emsam_jax.volumes.ingest.conversion import ingest
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.verify import check_present

STOPPED = 75  # as segment.py: temporary, call it again
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
    flags.DEFINE_boolean("overwrite", False, "Replace a volume that this software wrote at DST.")
    flags.DEFINE_boolean("check", True, "When going on, read what is done and compare it with its checksum.")
    flags.DEFINE_boolean("check_room", True, "Refuse a volume that is too large for DST's disk or this memory.")


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
            raise UserError(f"{source.url} does not know its voxel size; give it as --voxel_size=z,y,x in nm.")
        chunk, shard = three(FLAGS.chunk, int), three(FLAGS.shard, int)
        with stopping_on_signals():
            volume = ingest(
                source,
                normalise(arguments[2]),
                format=FLAGS.format,
                chunk=chunk,
                shard=shard,
                pyramid=FLAGS.pyramid,
                overwrite=FLAGS.overwrite,
                check=FLAGS.check,
                check_room=FLAGS.check_room,
                progress=True,
            )
    except StoppedError as stopped:
        print(f"ingest: {stopped}", file=sys.stderr)
        sys.exit(STOPPED)
    except UserError as error:
        sys.exit(f"ingest: {error}")
    print(f"{volume.url}: {volume.shape} {np.dtype(volume.dtype).name}, {volume.voxel_size_zyx} nm (z, y, x)")


if __name__ == "__main__":
    define_flags()
    app.run(main)
