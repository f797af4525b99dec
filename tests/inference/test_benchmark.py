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


def test_the_accelerators_benchmark_runs_all_its_parts_and_outlives_one_that_hangs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "accelerator.py", "--quick", f"--out={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, "--seconds=900"], check=True, capture_output=True, env=environment)
    found = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert {name: part["ended"] for name, part in found.items()} == dict.fromkeys(
        ("parity", "bfloat16", "encoder", "step", "predict", "kernels", "loader"), "done"
    )
    (kernels,) = found["kernels"]["results"]
    assert sum(kernel["s"] for kernel in kernels["rows"][0]["kernels"]) > 0
    ended = subprocess.run([*command, "--seconds=3", "--parts=loader,step"], check=False, env=environment)
    found = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert ended.returncode != 0
    assert found["step"]["ended"].startswith("stopped after 3 s")
    assert found["loader"]["ended"] == "not begun"
