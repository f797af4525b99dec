"""Models that travel: pushed with their card, loaded from Python, and exported as one program."""

from emsam_jax.sharing.loaded import load

__all__ = ["load"]
