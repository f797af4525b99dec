from pathlib import Path

import pytest

from emsam_jax.volumes import create_volume
from tests.segment_volume.command import RECIPE, draw_affinities, segment


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Affinities, a recipe, and `undisturbed.zarr`, what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("segment")
    affinities = draw_affinities()
    create_volume(folder / "affinities.zarr", affinities.shape, "float32", (40, 4, 4))[...] = affinities
    RECIPE.write(folder / "recipe.json")
    done = segment(folder, "undisturbed.zarr")
    assert done.returncode == 0, done.stderr
    assert "Labels: " in done.stdout
    return folder
