"""A scheduler and workers in processes of their own, as on a cluster, for tests that kill them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.programs import PATIENCE, environment


class Cluster(NamedTuple):
    address: str
    scheduler: subprocess.Popen


@contextlib.contextmanager
def dask_cluster(folder: Path, *workers: str, every: str = "") -> Iterator[Cluster]:
    """A worker process for each, with those flags; a nanny starts it again when it is killed."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    known = [f"--scheduler-file={file}", "--no-dashboard", *every.split()]
    with contextlib.ExitStack() as started:

        def run(program: str, *flags: str) -> subprocess.Popen:
            command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *known, *flags]
            process = subprocess.Popen(
                command,
                env=environment(),
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.callback(process.wait)
            started.callback(kill_group, process)
            return process

        scheduler = run("scheduler", "--host=127.0.0.1", "--port=0")
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), scheduler)
        for flags in workers:
            run("worker", "--nthreads=1", *flags.split())
        yield Cluster(json.loads(file.read_text())["address"], scheduler)


def kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = PATIENCE) -> None:
    """While the process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_imported(module: str) -> bool:
    """For a worker to answer, which imports this file for it."""
    return module in sys.modules
