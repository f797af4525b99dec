"""The commands before they begin: outside the environment, and asked for help."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("script", ["train.py", "eval.py", "segment.py", "convert/sam2_to_flax.py"])
def test_outside_the_environment_each_says_how_to_get_in(script):
    done = call("-S", script)  # without what is installed
    assert done.returncode == 1
    assert "not installed here. Activate the environment" in done.stderr
    assert done.stderr.count("\n") == 1


def test_train_lists_its_flags():
    listed = call("train.py", "--help").stdout
    for flag in ("--config", "--workdir", "--[no]plan", "--[no]distributed", "--compilation_cache"):
        assert f"  {flag}: " in listed
