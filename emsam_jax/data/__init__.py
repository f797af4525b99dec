"""Training batches: patches, warped as they are read, augmented and turned into affinities on the device."""

from emsam_jax.data.affinities import Target, affinities_from_labels, widen_borders
from emsam_jax.data.augment import Batch, make_augment
from emsam_jax.data.loader import Share, batches
from emsam_jax.data.patches import PatchSource, as_int32

__all__ = [
    "Batch",
    "PatchSource",
    "Share",
    "Target",
    "affinities_from_labels",
    "as_int32",
    "batches",
    "make_augment",
    "widen_borders",
]
