"""Training batches: patches of volumes, augmented and turned into affinities on the device."""

from emsam_jax.data.affinities import affinities_from_labels, widen_borders
from emsam_jax.data.augment import Batch, Target, Windows, make_augment
from emsam_jax.data.augmentation import NOTHING, Augmentation
from emsam_jax.data.loader import Share, batches, read_windows
from emsam_jax.data.patches import PatchSource, Selection

__all__ = [
    "NOTHING",
    "Augmentation",
    "Batch",
    "PatchSource",
    "Selection",
    "Share",
    "Target",
    "Windows",
    "affinities_from_labels",
    "batches",
    "make_augment",
    "read_windows",
    "widen_borders",
]
