"""The body of `emsam export --labels`: segmentations as other tools take them, copied block by block."""

from emsam_jax.exports.targets import export_labels

__all__ = ["export_labels"]
