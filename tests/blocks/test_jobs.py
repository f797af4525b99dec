"""Workers as jobs of a queueing system, for which a stand-in runs them on this machine."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from emsam_jax.blocks import EngineError
from emsam_jax.blocks.cluster import open_cluster
from emsam_jax.blocks.jobs import start_jobs
from tests.blocks.slurm import environment_with_slurm


def test_a_job_that_is_killed_is_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment_with_slurm(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    options = ["queue=long", "job_extra_directives=--nice", "job_extra_directives=--exclusive"]
    with open_cluster(workers=1, memory="1GiB", system="slurm", job=options) as client:
        client.wait_for_workers(1, timeout=30)
        (first,) = (tmp_path / "queue").glob("*.sh")
        before = workers_of(client)
        os.killpg(int(first.stem), signal.SIGKILL)
        while workers_of(client) & before:
            time.sleep(0.05)
        client.wait_for_workers(1, timeout=30)
        assert not workers_of(client) & before
    jobs = set((tmp_path / "queue").glob("*.sh"))
    assert len(jobs) == 2
    (second,) = jobs - {first}
    assert second.with_suffix(".cancelled").exists()
    script = second.read_text()
    assert all(line in script for line in ("#SBATCH -p long", "#SBATCH --nice", "#SBATCH --exclusive", "--mem=1G"))


def workers_of(client: Client) -> set[str]:
    found: Any = client.scheduler_info(n_workers=-1)
    return set(found["workers"])


# A cluster that dask-jobqueue could not make complains once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
    with pytest.raises(EngineError, match=message):
        start_jobs(system, workers, 1, memory, [option])
