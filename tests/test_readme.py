"""Every command and every line of Python in the README runs as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PROGRAMS = [command for command in COMMANDS if command.startswith("python ")]
# Small stand-ins for the files and machines that a user has.
QUICKLY = {
    "benchmarks/parity.py": ["--quick", "--sizes=tiny", "--versions=sam2"],
    "benchmarks/encoder.py": ["--sizes=tiny", "--sections=1", "--side=64", "--repeats=1"],
    "benchmarks/convert.py": ["--size=tiny"],
}


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_targets_exist_and_the_demo_draws(tmp_path):
    targets = [command.split("make ")[1] for command in COMMANDS if "make " in command]
    assert {"demo", "test", "lint", "bench"} == set(targets)
    recipes = subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (demo,) = (line.split("-m ")[1] for line in recipes.splitlines() if "emsam_jax.demo" in line)
    assert "Feature maps" in run([sys.executable, "-m", *shlex.split(demo), "--size=tiny", "--side=96"], tmp_path)
    assert (tmp_path / "runs/demo/features.png").stat().st_size > 10_000


def test_programs_and_python_run_in_order(tmp_path, request):
    pytest.importorskip("torch", reason="torch is not installed (the [convert] extra)")
    make_checkpoint = request.getfixturevalue("make_checkpoint")
    _, checkpoint = make_checkpoint("tiny")
    shutil.copy(checkpoint, tmp_path / "sam2.1_hiera_large.pt")  # the size is read off the tensors
    for folder in ("convert", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(checkpoint, cache / "sam2.1_hiera_tiny.pt")  # tests/porting/test_download.py fetches for real
    assert len(PROGRAMS) == 5
    for command in PROGRAMS:
        _, program, *flags = shlex.split(command)
        if program.startswith("convert"):
            flags.append(f"--cache={cache}")
        else:
            flags += [*QUICKLY[program], f"--out={tmp_path}/results"]
        run([sys.executable, program, *flags], tmp_path)
    assert len(list((tmp_path / "results").glob("*.json"))) == 3
    for code in PYTHON:
        checked = f"{code}\nassert [f.shape[3] for f in features.fpn] == [256] * 3"
        run([sys.executable, "-W", "error", "-c", checked], tmp_path)
