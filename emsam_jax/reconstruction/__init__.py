"""Neurons of volumes of any size: affinities, fragments, edges, objects, labels, each block by block."""

from emsam_jax.reconstruction.request import Request
from emsam_jax.reconstruction.run import ReconstructionError, reconstruct

__all__ = ["ReconstructionError", "Request", "reconstruct"]
