"""Formats that `open_volume` reads, one file each."""

from emsam_jax.volumes.formats.chunked import check_level, check_remote, from_spec, open_chunked, read_metadata
from emsam_jax.volumes.formats.hdf5 import datasets
from emsam_jax.volumes.formats.ome import multiscale
from emsam_jax.volumes.formats.virtual import CHUNK_BYTES

__all__ = [
    "CHUNK_BYTES",
    "check_level",
    "check_remote",
    "datasets",
    "from_spec",
    "multiscale",
    "open_chunked",
    "read_metadata",
]
