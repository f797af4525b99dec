"""Training batches: patches of volumes, warped as they are read, augmented and turned into affinities on the device."""

from emsam_jax.data.affinities import affinities_from_labels, widen_borders
from emsam_jax.data.augment import Batch, make_augment
from emsam_jax.data.augmentation import NOTHING, Augmentation
from emsam_jax.data.loader import Share, batches, read_samples
from emsam_jax.data.patches import PatchSource, Samples, Selection
from emsam_jax.data.target import Target

__all__ = [
    "NOTHING",
    "Augmentation",
    "Batch",
    "PatchSource",
    "Samples",
    "Selection",
    "Share",
    "Target",
    "affinities_from_labels",
    "batches",
    "make_augment",
    "read_samples",
    "widen_borders",
]
