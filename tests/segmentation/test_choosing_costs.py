"""What is learned and chosen on parts of a volume, and reported on another: the benchmarks run, and cost little."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, out: Path, *flags: str) -> dict[str, Any]:
    command = [sys.executable, BENCHMARKS / f"{script}.py", f"--out={out}", *flags]
    environment = {**os.environ, "XLA_FLAGS": ""}  # one device
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads((out / f"{script}-cpu.json").read_text())


def test_choosing_costs_little(tmp_path: Path):
    results = run("choosing", tmp_path, "--quick", "--kinds=ideal,noisy")
    assert results["mean_cost"] < 0.05
    thresholds = [row["threshold"] for row in results["rows"]]
    assert 0.05 < min(thresholds) <= max(thresholds) < 0.995


def test_choosing_costs_little_on_fib25(fib25_folder: Path, tmp_path: Path):
    """A quarter of the tissue, and the kind of affinities on which a grid up to 0.9 costs most."""
    results = run("choosing", tmp_path, f"--data={fib25_folder}", "--kinds=ideal", "--seeds=1", "--side=125")
    assert results["mean_cost"] < 0.05
    assert results["rows"][0]["threshold"] > 0.9


def test_pixel_classifier_runs(tmp_path: Path):
    results = run("pixel_classifier", tmp_path, "--quick")
    assert set(results["over_seeds"]) == {"all", "borders_ignored", "without_largest", "interior"}
    assert results["over_seeds"]["all"]["voi"]["mean"] >= results["oracle_no_result"]["mean"]
    assert results["over_seeds"]["borders_ignored"]["voi"]["mean"] < 0.3
    assert results["looks"] == 1


def test_real_tissue_runs(tmp_path: Path):
    """Trains, chooses and reports, and the second time only looks again."""
    flags = ("--quick", f"--runs={tmp_path}/runs")
    (first,), (again,) = (run("real_tissue", tmp_path, *flags)["seeds"] for _ in range(2))
    assert first["step"] == again["step"] == 2
    assert first["ways"] == again["ways"]
    assert first["ways"]["all"]["voi"] >= first["oracle_no_result"]["voi"] > 0
    assert (first["looks"], again["looks"]) == (1, 2)
    assert first["training"]["core_seconds"] > 0


def test_no_labels_runs(tmp_path: Path):
    """Draws, trains, chooses and reports, and the second time only looks again, at the same volumes."""
    flags = ("--quick", f"--runs={tmp_path}/runs")
    first, again = (run("no_labels", tmp_path, *flags)["volumes"] for _ in range(2))
    assert list(first) == ["FIB-25 150:250"]
    (one,), (other,) = (found["FIB-25 150:250"]["seeds"] for found in (first, again))
    assert one["ways"] == other["ways"]
    assert (one["looks"], other["looks"]) == (1, 2)
    trained = json.loads((tmp_path / "runs/0/config.json").read_text())["data"]["train"]
    assert [volume["name"] for volume in trained] == ["synthetic 0", "synthetic 1"]


def test_few_labels_runs(tmp_path: Path):
    """Each way of painting trains; a table that was stopped is filled up."""
    flags = ("--quick", f"--runs={tmp_path}/runs")
    first = run("few_labels", tmp_path, *flags, "--arms=strokes")["arms"]["strokes"]
    arms = run("few_labels", tmp_path, *flags, "--arms=strokes,strokes_plain,lone_mixed")["arms"]
    labelled = {arm: rows["seeds"][0]["labelled"] for arm, rows in arms.items()}
    assert labelled["lone_mixed"] == 5 / 24
    assert 0.01 <= labelled["strokes"] == labelled["strokes_plain"] < 0.02
    assert arms["strokes"]["seeds"][0]["ways"] == first["seeds"][0]["ways"]
    assert arms["strokes"]["seeds"][0]["training"]["calls"] == 2
    assert all(rows["over_seeds"]["all"]["voi"]["mean"] > 0 for rows in arms.values())


def test_transfer_runs(tmp_path: Path):
    """The encoder that other tissue trained is the one that a frozen row has, and no other row."""
    runs = tmp_path / "runs"
    flags = ("--quick", "--seeds=1", "--labelled=5", "--arms=unet,frozen", f"--runs={runs}")
    rows = run("transfer", tmp_path, *flags)["rows"]
    assert list(rows) == ["5 sections, unet", "5 sections, frozen"]
    assert all(row["over_seeds"]["all"]["voi"]["mean"] > 0 for row in rows.values())
    pretrained, kept = (
        json.loads((runs / at / "encoder.json").read_text()) for at in ("encoder", "5-frozen-0/encoder")
    )
    assert pretrained["hash"] == kept["hash"]
    assert not (runs / "5-unet-0/encoder").exists()


def test_fine_tuning_runs(tmp_path: Path):
    """Zero-shot rows keep the model's recipe; fine-tuning starts from its parameters."""
    first = run("fine_tuning", tmp_path, "--quick", f"--runs={tmp_path}/runs")["rows"]
    assert list(first) == ["zero-shot", "zero-shot, matched", "fine-tuned", "from scratch"]
    kept = json.loads((Path(__file__).parents[2] / "models/fib25/postprocess.json").read_text())
    thresholds = {name: row["seeds"][0]["threshold"] for name, row in first.items()}
    assert thresholds["zero-shot"] == thresholds["zero-shot, matched"] == kept["threshold"]
    scores = {name: row["over_seeds"]["all"]["voi"]["mean"] for name, row in first.items()}
    assert scores["zero-shot, matched"] != scores["zero-shot"]
    configs = (
        json.loads((tmp_path / f"runs/{run}-0/config.json").read_text()) for run in ("fine-tuned", "from-scratch")
    )
    assert [Path(config["init_from"]).name for config in configs] == ["fib25", ""]
