"""The body of `emsam train`, for one process or several that are joined into one run."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from emsam_jax.config import load_config
from emsam_jax.errors import UserError, first_line
from emsam_jax.targets import parse_target
from emsam_jax.training.bounds import plan_for
from emsam_jax.training.loop import train
from emsam_jax.training.plan import plan

_PATIENCE = 4 * 3600  # seconds


@dataclasses.dataclass(frozen=True)
class Processes:
    """Of one run, as they find each other; what is not given is found on Slurm, TPU pods, Kubernetes, with MPI."""

    coordinator: str = ""  # host:port of the first
    count: int = 0
    index: int = -1  # of this one


def start(
    config: str,
    overrides: Sequence[str],
    workdir: str | None,
    *,
    planning: bool = False,
    target: str = "",
    allow_overlap: bool = False,
    compilation_cache: str = "",
    processes: Processes | None = None,
) -> None:
    """Trains the experiment that the file `config` and its overrides describe, or only plans it."""
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", compilation_cache)
    experiment = load_config(config, overrides)
    if target:
        plan_for(experiment, parse_target(target))
        return
    if planning:
        plan(experiment)
        return
    if not workdir:
        raise UserError("Give --workdir=FOLDER, where the run is kept; or --plan, to see what fits.")
    with contextlib.nullcontext() if processes is None else _joined(processes):
        given = [place for place in (config, config.rpartition(":")[0], compilation_cache) if place]
        train(experiment, workdir, allow_overlap=allow_overlap, given=given)


@contextlib.contextmanager
def _joined(processes: Processes) -> Iterator[None]:
    """Before anything touches a device."""
    coordinator, count, index = processes.coordinator, processes.count, processes.index
    given = bool(coordinator), count > 0, index >= 0
    if any(given) and not all(given):
        raise UserError("Expected all of --coordinator, --processes and --process, or none of them.")
    if all(given) and index >= count:
        raise UserError(f"--process counts from 0 to --processes - 1 = {count - 1}; found {index}.")
    try:
        # At the end the others wait for the first one, which waits for the last validation.
        options: dict[str, Any] = {"shutdown_timeout_seconds": _PATIENCE}
        if all(given):
            options |= {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: could not join the other processes ({first_line(error)}); give --coordinator=host:port "
            "of the first process, --processes and --process."
        ) from error
    yield
    jax.distributed.shutdown()
