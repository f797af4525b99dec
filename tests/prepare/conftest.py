"""Synthetic volumes as labs have them: CREMI's layout, folders of sections, sparse labels."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from emsam_jax.volumes.synthetic import synthetic_volume
from emsam_jax.volumes.synthetic.tissue import Synthetic


@pytest.fixture(scope="session")
def tissue() -> Callable[[bool], Synthetic]:
    """Thick sections, or isotropic voxels; made once each."""
    made: dict[bool, Synthetic] = {}

    def make(isotropic: bool) -> Synthetic:
        if isotropic not in made:
            shape, size = ((96, 96, 96), (10.0, 10.0, 10.0)) if isotropic else ((60, 128, 128), (40.0, 8.0, 8.0))
            made[isotropic] = synthetic_volume(shape, 0, size)
        return made[isotropic]

    return make


def write_cremi(path: Path, volume: Synthetic, labels: np.ndarray | None = None) -> str:
    with h5py.File(path, "w") as file:
        for name, values in (("raw", volume.raw), ("labels/neuron_ids", volume.labels if labels is None else labels)):
            dataset = file.create_dataset(f"volumes/{name}", data=values)
            dataset.attrs["resolution"] = volume.voxel_size_zyx
            dataset.attrs["offset"] = (0.0, 0.0, 0.0)
    return str(path)


def write_sections(folder: Path, values: np.ndarray, suffix: str) -> str:
    folder.mkdir(parents=True)
    for z, section in enumerate(values):
        if suffix == "tif":
            tifffile.imwrite(folder / f"section_{z:03d}.tif", section)
        else:
            Image.fromarray(section).save(folder / f"section_{z:03d}.png")
    return str(folder)
