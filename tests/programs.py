"""How tests run the repository's programs; imported by Dask's workers too, so without jax."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 120  # seconds, for what takes 10 on two idle cores: machines that run tests run other things too


def environment(**changed: str) -> dict[str, str]:
    """Of a program that sees one device, and whose few voxels are computed by quickly compiled code."""
    quickly = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **quickly, **changed}
