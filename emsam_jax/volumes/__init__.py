"""Volumes of voxels: opened lazily from any format, created, cut to regions. Axes z, y, x; sizes in nm."""

from emsam_jax.volumes.axes import Sizes, is_isotropic
from emsam_jax.volumes.box import Box, Voxel, box_of, parse_box
from emsam_jax.volumes.create import create_array, create_volume, occupied, write_image_metadata, write_volume
from emsam_jax.volumes.layout import Format, Layout, chunk_for, plan_layout, shard_for, shard_within
from emsam_jax.volumes.meet import check_meet, nearest_indices, read_nearest, with_size_of
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.overlap import Part, open_shared, part_from, part_of, place_of, refuse_overlap
from emsam_jax.volumes.picture import check_picture
from emsam_jax.volumes.pyramid import plan_levels, read_coarsened
from emsam_jax.volumes.specimen import Specimen, open_declared, read_mirrored, reflect
from emsam_jax.volumes.volume import Volume, as_unit

__all__ = [
    "Box",
    "Format",
    "Layout",
    "Part",
    "Sizes",
    "Specimen",
    "Volume",
    "Voxel",
    "as_unit",
    "box_of",
    "check_meet",
    "check_picture",
    "chunk_for",
    "create_array",
    "create_volume",
    "is_isotropic",
    "nearest_indices",
    "occupied",
    "open_declared",
    "open_shared",
    "open_volume",
    "parse_box",
    "part_from",
    "part_of",
    "place_of",
    "plan_layout",
    "plan_levels",
    "read_coarsened",
    "read_mirrored",
    "read_nearest",
    "reflect",
    "refuse_overlap",
    "shard_for",
    "shard_within",
    "with_size_of",
    "write_image_metadata",
    "write_volume",
]
