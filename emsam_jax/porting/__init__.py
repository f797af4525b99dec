"""SAM2's PyTorch checkpoints to Flax. The only room that knows torch; nothing but `emsam convert` imports it."""

from emsam_jax.porting.converter import convert, refuse_to_overwrite
from emsam_jax.porting.download import BASE_URL, OFFICIAL, default_cache, download, download_from_hub

__all__ = ["BASE_URL", "OFFICIAL", "convert", "default_cache", "download", "download_from_hub", "refuse_to_overwrite"]
