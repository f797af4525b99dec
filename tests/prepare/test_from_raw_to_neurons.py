"""Anyone's volume, in the commands that `emsam prepare` names, with nothing edited."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emsam_jax.config import load_config
from emsam_jax.volumes import open_volume
from emsam_jax.volumes.synthetic import synthetic_volume
from tests.prepare.conftest import write_cremi, write_sections
from tests.programs import environment


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "emsam_jax", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hdf", "tif", "png"])
def test_raw_prepared_trained_judged_segmented_and_opened(form, tmp_path):
    volume, size = synthetic_volume((40, 64, 64), 0, (40.0, 8.0, 8.0)), []
    if form == "hdf":
        places = [write_cremi(tmp_path / "sample_A.hdf", volume)]
    else:
        labels = volume.labels.astype("u2")
        places = [write_sections(tmp_path / "raw", volume.raw, form), write_sections(tmp_path / "ids", labels, form)]
        size = ["--voxel_size=40,8,8"]
    said = run(tmp_path, "prepare", *places, *size, "--hours=0.0005")
    assert "s and" in said, said  # a trial was made
    config = load_config(str(tmp_path / "experiment.py"))
    assert config.optim.steps == 10
    train, judge, segment = re.findall(r"^  emsam (.+)$", said, re.MULTILINE)
    assert "Trained for 10 steps" in run(tmp_path, *shlex.split(train))
    run(tmp_path, *shlex.split(judge))
    scores = json.loads((tmp_path / "runs/experiment/eval/scores.json").read_text())
    assert list(scores["volumes"]) == [config.data.test[0].name]
    run(tmp_path, *shlex.split(segment))
    neurons = open_volume(tmp_path / "runs/experiment-neurons.zarr")
    assert neurons.shape == volume.raw.shape
    assert neurons.voxel_size_zyx == (40, 8, 8)
    assert neurons[...].max() > 1
