"""Eight CPU devices, no silent broadcasting between ranks; pyproject.toml adds warnings as errors and checked axes."""

import os
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """(size, version) -> the official PyTorch model, with random weights, and the file that holds it."""
    torch = pytest.importorskip("torch", reason="torch is not installed (the [convert] extra)")
    pytest.importorskip("sam2", reason="sam2 is not installed (the [convert] extra)")
    from emsam_jax.porting import official

    made: dict[tuple[str, str], tuple[Any, Path]] = {}

    def make(size: str, version: str = "sam2.1") -> tuple[Any, Path]:
        if (size, version) not in made:
            torch.manual_seed(len(made))
            model = official.build_model(size, version)
            official.randomise_position_embeddings(model.image_encoder)
            path = tmp_path_factory.mktemp("official") / f"{version}_hiera_{size}.pt"
            torch.save({"model": model.state_dict()}, path)
            made[size, version] = model, path
        return made[size, version]

    return make


@pytest.fixture(scope="session")
def tiny(make_checkpoint) -> tuple[Any, Path]:
    return make_checkpoint("tiny")
