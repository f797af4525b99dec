"""The sheet of augmentations and the loader's benchmark run."""

import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from tests import called_in_turn
from tests.programs import ROOT, environment


@pytest.mark.slow
def test_the_sheet(tmp_path):
    command = [sys.executable, "-m", "emsam_jax.data.sheet", f"--out={tmp_path / 'sheet.png'}", "--side=32"]
    subprocess.run(command, check=True)
    assert matplotlib.image.imread(tmp_path / "sheet.png").std() > 0.1


def test_mistakes_are_said_in_a_sentence(tmp_path):
    np.save(tmp_path / "raw.npy", np.ones((8, 32, 32), np.uint8))
    raw = f"--raw={tmp_path}/raw.npy"
    cases = {
        "Expected --side of 1 voxel or more, found 0.": ["--side=0"],
        "Expected --side of 1 voxel or more, found -8.": ["--side=-8"],
        "Expected --seed of 0 or more, found -1.": ["--seed=-1"],
        "expected a picture's name that ends in": ["--out=sheet"],
        "expected labels of the raw; give --labels.": [raw],
        "there is no such file or folder": [raw, f"--labels={tmp_path}/none.npy"],
        "a.zarr: there is no such file or folder": [f"--raw={tmp_path}/a.zarr", raw.replace("raw", "labels")],
    }
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([["--out=sheet.png", *arguments] for arguments in cases.values()]))
    command = [sys.executable, called_in_turn.__file__, "emsam_jax.data.sheet", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    for said, line in zip(cases, done.stdout.splitlines(), strict=True):
        status, found, *_ = json.loads(line)
        assert status == 1
        assert said in found
        assert found.startswith("command: ")
        assert found.count("\n") == 1


@pytest.mark.slow
def test_the_benchmark(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "loader.py"), "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / "loader-cpu.json").read_text())
    assert results["patches_per_s"]["ours"] > 0
