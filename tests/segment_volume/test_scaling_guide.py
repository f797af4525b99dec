"""The commands of docs/scaling.md, as they stand there, against stand-ins for Slurm and for Kubernetes' nodes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from emsam_jax.config import Config, DataConfig, DeclaredVolume, EncoderConfig, ModelConfig, PredictConfig
from emsam_jax.volumes import create_volume, open_volume
from emsam_jax.volumes.synthetic import synthetic_volume
from tests.blocks.slurm import environment_with_slurm
from tests.programs import ROOT
from tests.untrained import save_untrained

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "docs/scaling.md").read_text()


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with em.zarr and runs/cremi, a run that learned nothing."""
    folder = tmp_path_factory.mktemp("laboratory")
    raw = synthetic_volume((8, 64, 64), 0).raw
    create_volume(folder / "em.zarr", raw.shape, raw.dtype, (40, 8, 8))[...] = raw
    config = Config(
        name="small",
        model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 8)),
        data=DataConfig(train=(DeclaredVolume("em", f"{folder}/em.zarr", ""),), patch=(4, 32, 32)),
        predict=PredictConfig(block=(8, 32, 32)),
    )
    save_untrained(folder / "runs/cremi", config, (40.0, 8.0, 8.0))
    return folder


def run(folder: Path, command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment_with_slurm(folder),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same_as_here(folder: Path, out: str) -> None:
    """As processes of this machine make it, from the same affinities."""
    run(folder, f"emsam segment --affinities={out}/affinities --out=here-{out} --workers=1")
    np.testing.assert_array_equal(open_volume(folder / out)[...], open_volume(folder / f"here-{out}")[...])


def test_slurm(laboratory: Path):
    commands = [
        re.sub(r"--workers=\d+", "--workers=2", line)
        for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("emsam ")
    ]
    dry, first, threshold, status = commands
    assert re.search(r"^predict +1 .* this process\n.*^labels +1 .* a worker$", run(laboratory, dry), re.M | re.S)
    assert not (laboratory / "neurons.zarr").exists()
    for command in (first, threshold):
        assert "--cluster=slurm" in command
        run(laboratory, command)
    assert re.search(r"labels: (\d+) of \1 blocks done", run(laboratory, status))
    jobs = sorted((laboratory / "queue").glob("*.sh"))
    assert len(jobs) >= 3
    assert all(job.with_suffix(".cancelled").exists() for job in jobs)  # none is left behind
    scripts = [job.read_text() for job in jobs]
    assert all("#SBATCH -p cpu" in script for script in scripts)
    assert any("#SBATCH --gres=gpu:1" in script and "--resources GPU=1" in script for script in scripts)
    assert_same_as_here(laboratory, "neurons.zarr")


@contextlib.contextmanager
def containers(folder: Path, commands: list[list[str]]) -> Iterator[None]:
    running = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment_with_slurm(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        yield
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def commands_of(documents: list[dict[str, Any]], kind: str) -> list[list[str]]:
    found = (document["spec"]["template"]["spec"] for document in documents if document["kind"] == kind)
    return [container["command"] for spec in found for container in spec["containers"]]


def test_kubernetes(laboratory: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (block,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    documents = list(yaml.safe_load_all(block))
    service = next(document for document in documents if document["kind"] == "Service")
    name, named_port = service["metadata"]["name"], str(service["spec"]["ports"][0]["port"])

    def here(command: list[str]) -> list[str]:
        found = [part.replace(f"{name}:{named_port}", f"127.0.0.1:{port}") for part in command]
        return [str(port) if part == named_port else part.replace("--out=neurons", "--out=cloud") for part in found]

    (job,) = commands_of(documents, "Job")
    assert f"tcp://{name}:{named_port}" in " ".join(job)
    with containers(laboratory, [here(command) for command in commands_of(documents, "Deployment")]):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as asked, contextlib.suppress(OSError):
                asked.connect(("127.0.0.1", port))
                break
            time.sleep(0.1)
        run(laboratory, " ".join(here(job)))
    assert_same_as_here(laboratory, "cloud.zarr")


def test_the_table_is_what_was_measured(tmp_path: Path):
    program = str(ROOT / "benchmarks/scaling.py")
    command, environment = [sys.executable, program], environment_with_slurm(tmp_path)
    told = subprocess.run([*command, "--stored"], check=True, capture_output=True, text=True, env=environment).stdout
    assert told.strip() in GUIDE
    quick = [*command, "--quick", f"--out={tmp_path}"]
    measured = subprocess.run(quick, check=True, capture_output=True, text=True, env=environment, cwd=ROOT).stdout
    rows, found = ([line.split("|")[1] for line in text.splitlines() if "|" in line] for text in (told, measured))
    assert found[4:] == [row for row in rows[4:] if "pyramid" not in row]  # so small a volume has none
    assert json.loads((tmp_path / "scaling-cpu.json").read_text())["graph"]["bytes_an_edge"] > 32
