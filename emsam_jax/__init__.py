"""EMSAM-JAX: dense 3D segmentation of neurons in electron-microscopy volumes, with SAM2's image encoder, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsam_jax.sharing import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports what needs jax only when it is asked for: workers that only segment do without it."""
    if name == "load":
        from emsam_jax.sharing import load

        return load
    raise AttributeError(f"module 'emsam_jax' has no attribute {name!r}")
