"""The sheet of augmentations and the loader's benchmark run."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image

ROOT = Path(__file__).parents[2]


def test_the_sheet(tmp_path):
    command = [sys.executable, "-m", "emsam_jax.data.sheet", f"--out={tmp_path / 'sheet.png'}", "--side=32"]
    subprocess.run(command, check=True)
    assert matplotlib.image.imread(tmp_path / "sheet.png").std() > 0.1


def test_the_benchmark(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "loader.py"), "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / "loader-cpu.json").read_text())
    assert results["patches_per_s"]["ours"] > 0
