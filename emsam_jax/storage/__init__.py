"""Keys and files wherever they lie: read within bounds, written whole, and only where this software may write."""

from emsam_jax.storage.apart import places_of
from emsam_jax.storage.bounded import read_bounded
from emsam_jax.storage.context import file_context, locking_context, set_cache_limit, shared_context
from emsam_jax.storage.destination import (
    CONVERSION,
    EVALUATION,
    LABELS,
    PREDICTION,
    SEGMENTATION,
    SYNTHETIC,
    TRAINING,
    UNFINISHED,
    VOLUME,
    VOLUMES,
    Kind,
    check_free,
    claim,
    remove,
)
from emsam_jax.storage.fields import Field
from emsam_jax.storage.location import (
    RemoteFile,
    folder_spec,
    is_remote,
    normalise,
    open_folder,
    read_key,
    split_last,
    write_key,
    write_whole,
)
from emsam_jax.storage.machine import check_memory, free_disk, free_memory

__all__ = [
    "CONVERSION",
    "EVALUATION",
    "LABELS",
    "PREDICTION",
    "SEGMENTATION",
    "SYNTHETIC",
    "TRAINING",
    "UNFINISHED",
    "VOLUME",
    "VOLUMES",
    "Field",
    "Kind",
    "RemoteFile",
    "check_free",
    "check_memory",
    "claim",
    "file_context",
    "folder_spec",
    "free_disk",
    "free_memory",
    "is_remote",
    "locking_context",
    "normalise",
    "open_folder",
    "places_of",
    "read_bounded",
    "read_key",
    "remove",
    "set_cache_limit",
    "shared_context",
    "split_last",
    "write_key",
    "write_whole",
]
