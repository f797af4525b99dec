"""Several processes, on one machine or many, as one run."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from emsam_jax.training.errors import TrainingError

_PATIENCE = 4 * 3600  # seconds


@contextlib.contextmanager
def joined(coordinator: str = "", processes: int = 0, process: int = -1) -> Iterator[None]:
    """Before anything touches a device. What is not given is found on Slurm, TPU pods, Kubernetes, with MPI."""
    given = bool(coordinator), processes > 0, process >= 0
    if any(given) and not all(given):
        raise TrainingError("Expected all of --coordinator, --processes and --process, or none of them.")
    if all(given) and process >= processes:
        raise TrainingError(f"--process counts from 0 to --processes - 1 = {processes - 1}; found {process}.")
    try:
        # At the end the others wait for the first one, which waits for the last validation.
        options: dict[str, Any] = {"shutdown_timeout_seconds": _PATIENCE}
        if all(given):
            options |= {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"--distributed: could not join the other processes ({_first_line(error)}); give --coordinator=host:port "
            "of the first process, --processes and --process."
        ) from error
    yield
    jax.distributed.shutdown()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
