"""Starts workers as jobs of a queueing system, by dask-jobqueue, with the scheduler in the calling process."""

import contextlib
import shlex
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dask import config
from dask.utils import parse_bytes

from emsam_jax.blocks.dask.security import in_files, of_our_own, on_loopback
from emsam_jax.errors import UserError

SYSTEMS = ("slurm", "pbs", "sge", "lsf", "htcondor", "oar", "moab")
_OF_LISTS = ("job_extra_directives", "job_directives_skip", "job_script_prologue", "worker_extra_args")


@contextlib.contextmanager
def open_jobs(
    system: str, workers: int, threads: int, memory: str, options: Sequence[str] = (), *, dashboard: str = ""
) -> Iterator[Any]:
    """Yields a Dask cluster that keeps `workers` jobs: one that ends early is submitted again.

    They talk by TLS, with a key in files of this user alone, in the folder `shared_temp_directory` (an option; by
    default this process's own folder) that the machines share, for as long as the cluster lasts.

    `options` are dask-jobqueue's own, such as `queue=gpu` or `walltime=08:00:00`; those of a job that are lists may be
    repeated.
    """
    if system not in SYSTEMS:
        raise UserError(f"--cluster: expected one of {', '.join(SYSTEMS)}, found {system!r}.")
    if workers < 1:
        raise UserError(f"--cluster={system} needs --workers, how many of them to submit; found {workers}.")
    try:
        per_worker = parse_bytes(memory)
    except ValueError:
        raise UserError(f"--cluster={system} needs --memory of a worker, such as 16GiB; found {memory!r}.") from None
    try:
        import dask_jobqueue
    except ModuleNotFoundError:
        raise UserError(f"--cluster={system} needs dask-jobqueue: pip install 'emsam-jax[cluster]'.") from None
    chosen: dict[str, Any] = {"cores": threads, "processes": 1, "python": sys.executable, **parse_options(options)}
    classes = {name.lower(): getattr(dask_jobqueue, name) for name in dir(dask_jobqueue) if name.endswith("Cluster")}
    kind = classes[f"{system}cluster"]
    program = shlex.split(kind.job_cls.submit_command)[0]
    if shutil.which(program) is None:
        raise UserError(f"--cluster={system}: expected its program {program} on this machine, found none in PATH.")
    shared = chosen.pop("shared_temp_directory", None) or config.get(f"jobqueue.{system}.shared-temp-directory", None)
    try:
        keys = tempfile.TemporaryDirectory(prefix=".emsam-jax-", dir=Path(shared or ".").expanduser().absolute())
    except OSError as error:
        raise UserError(
            f"--job=shared_temp_directory: expected a folder for the jobs' key that can be written and that they see, "
            f"found {error.filename} ({error.strerror}); name another."
        ) from None
    with keys as folder:
        chosen["memory"] = f"{per_worker * chosen['processes']}B"
        chosen["security"] = in_files(of_our_own(), Path(folder))
        chosen["scheduler_options"] = {"dashboard_address": on_loopback(dashboard), "dashboard": bool(dashboard)}
        try:
            cluster = kind(**chosen)
            cluster.job_script()  # refuses what it does not know, before anything is submitted
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"--cluster={system}: expected options of dask-jobqueue, found that {reason}.") from None
        try:
            cluster.sync(submit, cluster, workers)
            cluster.adapt(minimum=workers, maximum=workers)
            yield cluster
        except SubmissionError as error:
            said = next((line for line in reversed(str(error).splitlines()) if line.strip()), "nothing")
            raise UserError(f"--cluster={system}: expected {program} to take a job, but it said: {said}") from None
        finally:
            with contextlib.suppress(AssertionError):  # Dask's, of workers that could not be submitted
                cluster.close()


class SubmissionError(RuntimeError):
    """Carries all that the queueing system printed."""


async def submit(cluster: Any, workers: int) -> None:
    """The first jobs, all at once; what Dask submits by itself ends in its log where it fails."""
    while len(cluster.worker_spec) < workers:
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        await cluster._correct_state()
    except (OSError, RuntimeError, ValueError) as error:
        raise SubmissionError(str(error)) from None


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Parses options given as `name=value`."""
    found: dict[str, Any] = {}
    lists: dict[str, list[str]] = defaultdict(list)
    for option in options:
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise UserError(f"--job: expected name=value, such as queue=gpu; found {option!r}.")
        if name in _OF_LISTS:
            lists[name].append(value)
        else:
            found[name] = int(value) if value.isdigit() else value
    return found | lists
