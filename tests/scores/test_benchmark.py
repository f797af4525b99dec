"""The benchmark runs, and its peer agrees."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_scores_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "scores.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "scores-cpu.json").read_text())
    assert results["largest_difference"] < 1e-9
    assert results["on_disk"]["voxels"] == 2 * 8 * 48 * 64
    assert results["peak_bytes"]["ours"] < results["peak_bytes"]["scikit_image"]
