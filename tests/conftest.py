"""Eight CPU devices, no silent broadcasting between ranks; pyproject.toml adds warnings as errors and checked axes."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import h5py
import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_REAL_DATA = Path(os.environ.get("EMSAM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def read_fib25() -> Callable[..., np.ndarray]:
    """Reads sections 150-249 of a volume of FIB-25, the part to report on; it is not part of the repository."""

    def read(name: str = "labels", file: str = "fib25_training2.h5") -> np.ndarray:
        path = _REAL_DATA / file
        if not path.exists():
            pytest.skip(f"needs FIB-25: {path} is not there (EMSAM_DATA names its folder)")
        with h5py.File(path) as volumes:
            return volumes[name][150:]  # type: ignore[reportIndexIssue]

    return read
