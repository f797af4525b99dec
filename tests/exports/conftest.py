"""A segmentation in 24 blocks, and the readers of other tools, which have an environment of their own."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.segmentation.blockwise.tables import LOOKUP, read_table
from emsam_jax.segmentation.cleaning import CleanUp
from emsam_jax.volumes import open_volume
from tests.programs import ROOT
from tests.segmentation.cells import AFFINITIES, IN_3D, store

READERS = ROOT / ".venv-readers/bin/python"
BLOCK = (8, 16, 32)


class Run(NamedTuple):
    url: Path
    pieces: np.ndarray  # z, y, x: ids in fragments/
    labels: np.ndarray
    lookup: dict[int, int]  # lookup.npy
    contacts: dict[tuple[int, int], list[float]]  # pieces u < v that touch: the affinities between them
    one: set[tuple[int, int]]  # pieces u < v that touch and are one fragment


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Small objects are dropped, so that some pieces are background; the first voxel lies at 2, 2, 2 of the world."""
    folder = tmp_path_factory.mktemp("segmented")
    recipe = Recipe("waterz", 0.5, IN_3D, clean_up=CleanUp(min_size=2500))
    segment_blockwise(store(folder / "affinities.zarr", AFFINITIES), folder / "neurons.zarr", recipe, BLOCK)
    url = folder / "neurons.zarr"
    pieces = open_volume(url / "fragments")[...]
    lookup = read_table(str(url), "lookup.npy", LOOKUP)
    fragment = dict(read_table(str(url), "pieces.npy", LOOKUP).tolist())
    contacts: dict[tuple[int, int], list[float]] = {}
    for channel in range(3):
        ends = [np.moveaxis(pieces, channel, 0)[part] for part in (slice(None, -1), slice(1, None))]
        values = np.moveaxis(AFFINITIES[channel], channel, 0)[1:]
        touching = (ends[0] != ends[1]) & (ends[0] > 0) & (ends[1] > 0)
        for u, v, value in zip(ends[0][touching], ends[1][touching], values[touching], strict=True):
            contacts.setdefault((int(min(u, v)), int(max(u, v))), []).append(float(value))
    one = {pair for pair in contacts if fragment[pair[0]] == fragment[pair[1]]}
    assert len(one) > 20
    assert (lookup["label"] == 0).any()
    return Run(url, pieces, open_volume(url)[...], dict(lookup.tolist()), contacts, one)


def read_by_its_own(code: str, *arguments: object) -> None:
    """Runs code where the tools' own libraries are; WEBKNOSSOS's is AGPL, and no part of this software needs it."""
    if not READERS.exists():
        pytest.skip("needs webknossos and napari-ome-zarr: make .venv-readers/installed")
    done = subprocess.run(
        [READERS, "-W", "ignore", "-c", code, *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
