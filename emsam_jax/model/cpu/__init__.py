"""Forms of the layers that XLA runs faster on CPUs, and its options there; `model.by_platform` chooses them."""

import jaxlib

from emsam_jax.model.cpu.convolution import convolve
from emsam_jax.model.cpu.functions import attend, double, elu, gelu

__all__ = ["COMPILER_OPTIONS", "QUICK_OPTIONS", "attend", "convolve", "double", "elu", "gelu"]

# By default XLA hands products to YNNPACK, fused with the layer norm before them. Without that the encoder runs
# 1.1-1.25x as fast (benchmarks/encoder.py). The option is XLA's own and may go: newer versions do without it.
_TRIED = {(0, 10), (0, 11), (0, 12)}  # versions of jaxlib
COMPILER_OPTIONS = (
    {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}
    if jaxlib.version.__version_info__[:2] in _TRIED
    else {}
)
QUICK_OPTIONS = {"xla_backend_optimization_level": 0}  # compiles 4 times as fast, and not well
