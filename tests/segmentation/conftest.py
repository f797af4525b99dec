"""Stored volumes that are segmented block by block, not written by the tests."""

import numpy as np
import pytest

from emsam_jax.segmentation import FragmentParameters, make_fragments
from emsam_jax.volumes import Volume
from tests.segmentation.cells import AFFINITIES, store


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return store(tmp_path_factory.mktemp("affinities") / "affinities.zarr", AFFINITIES)


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """Fragments of the whole volume, of sparse ids."""
    fragments = make_fragments(AFFINITIES, FragmentParameters("2d", seed_distance=3))
    fragments[:, :4] = 0
    ids = np.sort(np.random.default_rng(1).choice(2**40, int(fragments.max()) + 1, replace=False)).astype(np.uint64)
    ids[0] = 0
    return store(tmp_path_factory.mktemp("fragments") / "fragments.zarr", ids[fragments])
