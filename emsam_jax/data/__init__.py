"""Training batches: patches of volumes, augmented and turned into affinities on the device."""

from emsam_jax.data.affinities import affinities_from_labels, widen_borders

__all__ = ["affinities_from_labels", "widen_borders"]
