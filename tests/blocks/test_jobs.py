"""Workers as jobs of a queueing system, for which a stand-in runs them on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from emsam_jax.blocks.dask import open_cluster
from emsam_jax.blocks.dask.jobs import open_jobs
from emsam_jax.errors import UserError
from tests.blocks.slurm import environment_with_slurm
from tests.programs import PATIENCE


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_with_slurm(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_job_that_is_killed_is_submitted_again(tmp_path: Path):
    options = ["queue=long", "job_extra_directives=--nice", "job_extra_directives=--exclusive"]
    with open_cluster(workers=1, memory="1GiB", system="slurm", job=options) as client:
        client.wait_for_workers(1, timeout=PATIENCE)
        (first,) = (tmp_path / "queue").glob("*.sh")
        (folder,) = tmp_path.glob(".emsam-jax-*")
        assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.iterdir()))
        before = workers_of(client)
        os.killpg(int(first.stem), signal.SIGKILL)
        while workers_of(client) & before:
            time.sleep(0.05)
        client.wait_for_workers(1, timeout=PATIENCE)
        assert not workers_of(client) & before
    jobs = set((tmp_path / "queue").glob("*.sh"))
    assert len(jobs) == 2
    (second,) = jobs - {first}
    assert second.with_suffix(".cancelled").exists()
    script = second.read_text()
    assert "tls://" in script
    assert not folder.exists()
    assert all(line in script for line in ("#SBATCH -p long", "#SBATCH --nice", "#SBATCH --exclusive", "--mem=1G"))


def workers_of(client: Client) -> set[str]:
    found: Any = client.scheduler_info(n_workers=-1)
    return set(found["workers"])


# A cluster that dask-jobqueue could not make complains once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(
    ("system", "workers", "memory", "option", "message"),
    [
        ("slur", 2, "1GiB", "queue=a", "expected one of slurm, pbs, .*, found 'slur'"),
        ("slurm", 0, "1GiB", "queue=a", "--cluster=slurm needs --workers"),
        ("slurm", 2, "auto", "queue=a", "--cluster=slurm needs --memory of a worker, such as 16GiB; found 'auto'"),
        ("slurm", 2, "1GiB", "queue", "--job: expected name=value, such as queue=gpu; found 'queue'"),
        ("slurm", 2, "1GiB", "bogus=1", "found that .*'bogus'"),
    ],
)
def test_mistakes_are_named(system: str, workers: int, memory: str, option: str, message: str):
    with pytest.raises(UserError, match=message):
        open_jobs(system, workers, 1, memory, [option]).__enter__()


@pytest.mark.slow
def test_a_queue_that_is_not_there_or_takes_no_job_is_said_at_once(tmp_path: Path):
    program = (
        "from emsam_jax.blocks.dask import open_cluster\nfrom emsam_jax.errors import UserError\n"
        "try:\n    open_cluster(workers=2, memory='1GiB', system='slurm').__enter__()\n"
        "except UserError as error:\n    print(error)"
    )
    with_queue = environment_with_slurm(tmp_path)
    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    without = {**with_queue, "PATH": str(Path(sys.executable).parent)}
    for environment, message in (
        (without, "--cluster=slurm: expected its program sbatch on this machine, found none in PATH.\n"),
        (with_queue, "expected sbatch to take a job, but it said: sbatch: error: invalid partition\n"),
    ):
        said = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            timeout=PATIENCE,
        )
        assert said.stdout.endswith(message)
        assert "Traceback" not in said.stderr
