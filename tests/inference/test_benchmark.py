"""The benchmark runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_predict_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "predict.py", "--quick", f"--out={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "XLA_FLAGS": ""}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    (row,) = json.loads((tmp_path / "predict_quick-cpu.json").read_text())["rows"]
    assert (row["windows"], row["sections_once"], row["sections_plain"]) == (3 * 3 * 3, 9 * 4, 9 * 12)
    assert row["mvoxel_per_s"] > 0
    assert row["saving_bound"] >= 1
    assert row["share_of_matrix_rate"] > 0
    assert all(row["stages_s"]["once"][stage] > 0 for stage in ("read", "encode", "decode", "blend", "write"))
