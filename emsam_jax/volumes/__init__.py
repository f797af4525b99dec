"""Volumes of voxels: opened lazily from any format, created, converted, checked. Axes z, y, x; sizes in nm."""

from emsam_jax.volumes.box import Box, box_of, parse_box
from emsam_jax.volumes.context import set_cache_limit
from emsam_jax.volumes.create import create_volume, write_volume
from emsam_jax.volumes.declared import CREMI_OUTSIDE, DeclaredVolume, Intensity, LabelRules
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.findings import Finding, check_present, quick_findings
from emsam_jax.volumes.mirror import read_mirrored, reflect
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.overlap import Part, open_shared, part_of, refuse_overlap
from emsam_jax.volumes.specimen import Specimen, open_declared
from emsam_jax.volumes.volume import Volume

__all__ = [
    "CREMI_OUTSIDE",
    "Box",
    "DeclaredVolume",
    "Finding",
    "Intensity",
    "LabelRules",
    "Part",
    "Specimen",
    "Volume",
    "VolumeError",
    "box_of",
    "check_present",
    "create_volume",
    "open_declared",
    "open_shared",
    "open_volume",
    "parse_box",
    "part_of",
    "quick_findings",
    "read_mirrored",
    "reflect",
    "refuse_overlap",
    "set_cache_limit",
    "write_volume",
]
