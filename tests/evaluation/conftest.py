"""A small labelled volume with affinities that are not quite right, on disk as a user has them."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bioimage_cpp.filters import gaussian_smoothing

from emsam_jax.segmentation import ideal_affinities
from emsam_jax.volumes import create_volume
from tests.programs import ROOT, environment

SIZE = (10.0, 10.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Study:
    folder: Path
    raw: np.ndarray
    truth: np.ndarray
    affinities: np.ndarray  # uint8, of z 8-39 only

    def flags(self, **changed: str) -> dict[str, str]:
        """Of eval.py: test on z 20-39, validation on z 8-19."""
        stored = {name: f"{self.folder}/{name}.zarr" for name in ("raw", "labels", "affinities")}
        return stored | {"roi": "20:40,0:48,0:48", "validation_roi": "8:20,0:48,0:48", "name": "cells"} | changed


def run_eval(**flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "eval.py", *[f"--{name}={value}" for name, value in flags.items()]]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment())


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    shape = (40, 48, 48)
    rng = np.random.default_rng(0)
    seeds = rng.uniform(0, shape, (45, 3))
    points = np.moveaxis(np.indices(shape), 0, -1)[..., None, :]
    truth = (1 + ((points - seeds) ** 2).sum(-1).argmin(-1)).astype(np.uint16)
    truth[:, :3, :3] = 0
    ideal = ideal_affinities(truth)
    blotches = gaussian_smoothing(rng.normal(0, 1, shape).astype(np.float32), 2.0)
    uneven = np.clip(ideal + 2.2 * blotches[None], 0, 1)
    raw = np.clip(60 + 130 * ideal.mean(0) + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)
    affinities = np.rint(255 * uneven).astype(np.uint8)[:, 8:]
    for name, values, start in (("raw", raw, 0), ("labels", truth, 0), ("affinities", affinities, 8)):
        offset = (SIZE[0] * start, 0.0, 0.0)
        create_volume(folder / f"{name}.zarr", values.shape, values.dtype, SIZE, offset_zyx=offset)[...] = values
    return Study(folder, raw, truth, affinities)


@pytest.fixture(scope="session")
def answered(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """scores.json, what the terminal showed, and the folder, of stored affinities with a validation part."""
    out = tmp_path_factory.mktemp("eval")
    done = run_eval(**study.flags(out=str(out), standings="fib25", title="A <b>bold</b> title & all"))
    assert done.returncode == 0, done.stderr
    return json.loads((out / "scores.json").read_text()), done.stdout, out
