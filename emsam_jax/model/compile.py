"""`jax.jit` with the compiler options that suit this project's models."""

from collections.abc import Callable
from typing import Any

import jax
import jaxlib

# By default XLA hands products on the CPU to YNNPACK, fused with the layer norm before them. Without that the encoder
# runs 1.1-1.25x as fast (benchmarks/encoder.py). The option is XLA's own and may go: newer versions do without it.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}
_KNOWN_VERSIONS = range(10, 13)  # minor versions of jaxlib 0.x that were tried


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """For outermost functions only: jax takes compiler options nowhere else."""
    tried = jaxlib.version.__version_info__[:2] in [(0, minor) for minor in _KNOWN_VERSIONS]
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(function, compiler_options=_CPU_OPTIONS if tried and on_cpu else None, **options)


def jit_once(function: Callable[..., Any], **options: Any) -> Any:
    """For what runs once, such as drawing random parameters: compiled 4 times as fast on the CPU, and not well."""
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0} if on_cpu else None, **options)
