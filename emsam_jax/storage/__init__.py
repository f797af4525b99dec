"""Keys and files wherever they lie: read within bounds, written whole, and only where this software may write."""

from emsam_jax.storage.apart import inode_of, metadata_files, places_of
from emsam_jax.storage.bounded import read_bounded
from emsam_jax.storage.context import file_context, locking_context, set_cache_limit, shared_context
from emsam_jax.storage.destination import (
    CONVERSION,
    EVALUATION,
    EXPORT,
    LABELS,
    MODEL,
    OBJECTS,
    PREDICTION,
    SEGMENTATION,
    SYNTHETIC,
    TRAINING,
    UNFINISHED,
    VOLUME,
    VOLUME_FILES,
    VOLUMES,
    Kind,
    check_free,
    claim,
)
from emsam_jax.storage.fields import Field
from emsam_jax.storage.hub import commit_to_hub, fetch_from_hub, is_on_hub
from emsam_jax.storage.location import (
    folder_spec,
    is_remote,
    normalise,
    open_folder,
    read_key,
    split_last,
    write_key,
    write_keys,
    write_whole,
)
from emsam_jax.storage.machine import check_memory, free_disk, free_memory, usable_cores
from emsam_jax.storage.remote_file import RemoteFile
from emsam_jax.storage.removal import remove
from emsam_jax.storage.replacing import beside, end_replacing, put_in_place

__all__ = [
    "CONVERSION",
    "EVALUATION",
    "EXPORT",
    "LABELS",
    "MODEL",
    "OBJECTS",
    "PREDICTION",
    "SEGMENTATION",
    "SYNTHETIC",
    "TRAINING",
    "UNFINISHED",
    "VOLUME",
    "VOLUMES",
    "VOLUME_FILES",
    "Field",
    "Kind",
    "RemoteFile",
    "beside",
    "check_free",
    "check_memory",
    "claim",
    "commit_to_hub",
    "end_replacing",
    "fetch_from_hub",
    "file_context",
    "folder_spec",
    "free_disk",
    "free_memory",
    "inode_of",
    "is_on_hub",
    "is_remote",
    "locking_context",
    "metadata_files",
    "normalise",
    "open_folder",
    "places_of",
    "put_in_place",
    "read_bounded",
    "read_key",
    "remove",
    "set_cache_limit",
    "shared_context",
    "split_last",
    "usable_cores",
    "write_key",
    "write_keys",
    "write_whole",
]
