"""Eight CPU devices, no silent broadcasting between ranks; pyproject.toml adds warnings as errors and checked axes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import h5py
import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_REAL_DATA = Path(os.environ.get("EMSAM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """(size, version) -> the official PyTorch model, with random weights, and the file that holds it."""
    torch = pytest.importorskip("torch", reason="torch is not installed (the [convert] extra)")
    pytest.importorskip("sam2", reason="sam2 is not installed (the [convert] extra)")
    from emsam_jax.porting import parity

    made: dict[tuple[str, str], tuple[Any, Path]] = {}

    def make(size: str, version: str = "sam2.1") -> tuple[Any, Path]:
        if (size, version) not in made:
            torch.manual_seed(len(made))
            model = parity.build_model(size, version)
            parity.randomise_position_embeddings(model.image_encoder)
            path = tmp_path_factory.mktemp("official") / f"{version}_hiera_{size}.pt"
            torch.save({"model": model.state_dict()}, path)
            made[size, version] = model, path
        return made[size, version]

    return make


@pytest.fixture(scope="session")
def tiny(make_checkpoint) -> tuple[Any, Path]:
    return make_checkpoint("tiny")


@pytest.fixture(scope="session")
def fib25_folder() -> Path:
    """The folder of FIB-25, which is not part of the repository."""
    if not (_REAL_DATA / "fib25_training2.h5").exists():
        pytest.skip(f"needs FIB-25: {_REAL_DATA} has no fib25_training2.h5 (EMSAM_DATA names its folder)")
    return _REAL_DATA


@pytest.fixture(scope="session")
def read_fib25(fib25_folder: Path) -> Callable[..., np.ndarray]:
    """Reads sections 150-249 of a volume of FIB-25, the part to report on."""

    def read(name: str = "labels", file: str = "fib25_training2.h5") -> np.ndarray:
        with h5py.File(fib25_folder / file) as volumes:
            return volumes[name][150:]  # type: ignore[reportIndexIssue]

    return read
