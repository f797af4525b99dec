"""The benchmarks run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_segmentation_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "segmentation.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "segmentation-cpu.json").read_text())
    assert results["voi"]["mean"] < 0.5
    assert all(rate > 0 for rate in results["million_voxels_a_core_second"].values())
    assert results["machine"]["cpu"]


def test_blockwise_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "blockwise.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "blockwise-cpu.json").read_text())
    assert abs(results["voi_to_truth"]["in_blocks"] - results["voi_to_truth"]["at_once"]) < 0.05
    assert results["voi_apart"].keys() == {"mean", "q50"}
    assert max(results["voi_apart"].values()) < 0.1
    assert results["overhead"] > 0
    assert results["second_worker"] > 0


def test_where_to_look_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "where_to_look.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "where_to_look-cpu.json").read_text())
    assert results["looks"] == 0
    for found in results["volumes"]["small"]["ways"].values():
        assert found["voi"]["cost"][-1] <= found["voi"]["cost"][0]
        assert found["calibration_error"] < 0.2


def test_corrections_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "corrections.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    volumes = json.loads((tmp_path / "corrections-cpu.json").read_text())["volumes"]
    for found in (volumes[name][model] for name in ("cells", "tissue") for model in "ab"):
        assert found["fulfilled"] + sum(found["listed"].values()) == found["edits"] > 0
        assert found["unlisted"] == 0
    assert volumes["cells"]["a"]["after"]["voi"] < volumes["cells"]["a"]["before"]["voi"]
