"""Volumes of voxels: opened lazily from any format, created, converted, checked. Axes z, y, x; sizes in nm."""

from emsam_jax.volumes.box import Box, box_of, parse_box
from emsam_jax.volumes.context import set_cache_limit
from emsam_jax.volumes.create import create_volume
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.volume import Volume

__all__ = ["Box", "Volume", "VolumeError", "box_of", "create_volume", "open_volume", "parse_box", "set_cache_limit"]
