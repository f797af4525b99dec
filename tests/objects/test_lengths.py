"""Skeletons as long as kimimaro's, which is GPL and so no more than a test's reference."""

import json
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.objects import make_objects, plan_objects
from emsam_jax.volumes import create_volume
from emsam_jax.volumes.synthetic import synthetic_volume
from tests.objects.tissue_of_shapes import read_rows
from tests.programs import ROOT, environment

with warnings.catch_warnings():  # what its own dependencies say when imported
    warnings.simplefilter("ignore")
    import kimimaro

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SIZE = (40.0, 8.0, 8.0)  # nm
TEASAR = {"scale": 1.5, "const": 300, "pdrf_scale": 100000, "pdrf_exponent": 4, "soma_detection_threshold": 1e9}
TREE = [
    [(4, 20, 10), (4, 20, 60), (15, 70, 90), (26, 60, 120)],
    [(4, 20, 60), (20, 20, 110)],
    [(4, 20, 30), (4, 80, 40)],
]


def measure(labels: np.ndarray, folder: Path) -> tuple[dict[int, float], dict[int, float]]:
    """Lengths of all skeletons: ours, in blocks, and kimimaro's."""
    volume = create_volume(folder / "labels.zarr", labels.shape, np.uint32, SIZE)
    volume[...] = labels
    make_objects(plan_objects(volume.url, str(folder / "out"), block=(20, 64, 64)))
    ours = {name: row["skeleton_nm"] for name, row in read_rows(folder / "out").items()}
    found = kimimaro.skeletonize(
        labels, teasar_params=TEASAR, dust_threshold=0, anisotropy=SIZE, fix_borders=False, progress=False
    )
    return ours, {name: float(skeleton.cable_length()) for name, skeleton in found.items()}


def draw_rod(labels: np.ndarray, ends: tuple, radius: float, name: int) -> None:
    """Draws the voxels within `radius` nm of a line between two voxels."""
    places = np.moveaxis(np.indices(labels.shape), 0, -1) * SIZE
    start, stop = (np.array(end) * SIZE for end in ends)
    along = np.clip((places - start) @ (stop - start) / ((stop - start) ** 2).sum(), 0, 1)
    labels[((places - start - along[..., None] * (stop - start)) ** 2).sum(-1) <= radius**2] = name


def test_tubes_and_a_tree(tmp_path: Path):
    labels = np.zeros((36, 100, 140), np.uint32)
    draw_rod(labels, ((32, 10, 10), (32, 10, 130)), 85, 1)
    draw_rod(labels, ((30, 40, 20), (33, 90, 125)), 60, 2)
    for branch in TREE:
        for ends in pairwise(branch):
            draw_rod(labels, ends, 75, 3)
    ours, reference = measure(labels, tmp_path)
    assert ours == pytest.approx(reference, rel=0.05)


def test_neurites(tmp_path: Path):
    """Single ones may differ more, as kimimaro's do in the mirrored volume: a branch is just long enough, or not."""
    labels = synthetic_volume((40, 128, 128), 1, SIZE).labels.astype(np.uint32)
    ours, reference = measure(labels, tmp_path)
    assert reference.keys() <= ours.keys()  # kimimaro leaves out what is a few voxels
    assert sum(ours.values()) == pytest.approx(sum(reference.values()), rel=0.05)
    ratios = [ours[name] / length for name, length in reference.items() if length > 1000]
    assert len(ratios) > 10
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.05


def test_the_benchmark_runs(tmp_path: Path):
    command = [sys.executable, str(ROOT / "benchmarks/objects.py"), "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    results = json.loads((tmp_path / "objects-cpu.json").read_text())
    assert results["emsam_objects"]["blocks_as_whole"]
    assert results["libraries"]["mesh_bioimage"]["closed_edges"] == 1
