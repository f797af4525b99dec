"""A synthetic volume, a config small enough to train on in seconds, and trainings in processes of their own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsam_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    DeclaredVolume,
    EncoderConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    PredictConfig,
    ValidationConfig,
    load_config,
    to_dict,
)
from emsam_jax.volumes.synthetic import synthetic_volume
from tests.programs import PATIENCE, ROOT, environment

Make = Callable[..., Config]


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small config as JSON; sections 0-9 of its volume to train on, 10-15 to choose on."""
    folder = tmp_path_factory.mktemp("synthetic")
    volume = synthetic_volume((16, 96, 96), 0)
    np.save(folder / "raw.npy", volume.raw)
    np.save(folder / "labels.npy", volume.labels)

    def declare(roi: str) -> DeclaredVolume:
        return DeclaredVolume(
            name=f"synthetic {roi}",
            raw=f"{folder}/raw.npy",
            labels=f"{folder}/labels.npy",
            raw_voxel_size_zyx=(40, 8, 8),
            roi=roi,
        )

    config = Config(
        name="small",
        model=ModelConfig(encoder=EncoderConfig(size="none"), projected=8, channels=(4,)),
        data=DataConfig(
            train=(declare("0:10,0:96,0:96"),), validation=(declare("10:16,0:96,0:96"),), patch=(4, 32, 32), threads=2
        ),
        optim=OptimConfig(steps=4, batch=2, warmup=2),
        checkpoint=CheckpointConfig(every=2),
        validation=ValidationConfig(every=0, scorers=("mean",)),
        log=LogConfig(every=1, pictures_every=1000),
        predict=PredictConfig(block=(6, 64, 64)),
    )
    path = folder / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    return path


@pytest.fixture(scope="session")
def make_config(config_file: Path) -> Make:
    """The small config with fields replaced, as `optim.steps=8`."""
    return lambda *overrides: load_config(str(config_file), [f"--config.{override}" for override in overrides])


class Run:
    """A training in a process of its own, on one device."""

    def __init__(self, config_file: Path, workdir: Path, cache: Path, *arguments: str):
        self.workdir = workdir
        program = [sys.executable, str(ROOT / "train.py"), f"--config={config_file}", f"--workdir={workdir}"]
        self.process = subprocess.Popen(
            [*program, f"--compilation_cache={cache}", *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=4 * PATIENCE)  # compiled for up to a minute
        return self.process.returncode, out, err

    def wait_for(self, seen: Callable[[], bool]) -> None:
        while not seen():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.001)

    def kill_while_saving(self, step: int) -> None:
        """The checkpoint of a step from `step` on is under way when the process dies."""
        while True:
            self.wait_for(lambda: bool(self.saving(step)))
            self.process.send_signal(signal.SIGSTOP)
            if self.saving(step):
                break
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate()

    def saving(self, step: int) -> list[Path]:
        partial = (self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")
        return [folder for folder in partial if int(folder.name.split(".")[0]) >= step]


@pytest.fixture(scope="session")
def start_run(config_file: Path, compiled: Path):
    """(its folder, arguments) -> a training that has begun."""
    begun: list[Run] = []

    def start(workdir: Path, *arguments: str) -> Run:
        begun.append(Run(config_file, workdir, compiled, *arguments))
        return begun[-1]

    yield start
    for run in begun:
        if run.process.poll() is None:
            run.process.kill()
        if run.process.stdout is not None and not run.process.stdout.closed:
            run.process.communicate()


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Of metrics.jsonl, without how fast it went."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "patches_per_second"} for row in rows]


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    return read_rows
