"""Opens the workers that do the blocks: processes of this machine, jobs of a queueing system, or a scheduler's."""

import contextlib
import dataclasses
import importlib.util
import logging
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker

from dask import config
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, Nanny, Worker, WorkerPlugin
from distributed.core import Status

from emsam_jax.blocks.dask.jobs import open_jobs
from emsam_jax.blocks.dask.security import Tls, of_our_own, on_loopback
from emsam_jax.blocks.interruption import noticing_signals
from emsam_jax.errors import StoppedError, UserError
from emsam_jax.storage import usable_cores

_PATIENCE = 8.0  # seconds for a scheduler to answer
_NEEDED = 200 << 20  # bytes
_STARTS = 4  # of a worker, before it is given up
_GOODBYE = 5.0  # seconds for it to hear that we leave

# A worker keeps the memory of a block for the next one: half of its time would go into page faults (glibc).
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}

# No results are kept that could be written to disk, and a worker that keeps its memory would pause for ever.
KEEPING_NOTHING = tuple(f"distributed.worker.memory.{limit}" for limit in ("target", "spill", "pause"))
_WORKERS = {
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ALLOCATOR.items()},
    "distributed.worker.multiprocessing-method": "spawn",
    **dict.fromkeys(KEEPING_NOTHING, False),
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",  # until they have our plugin
}
_NO_PAGES = {f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")}  # they ask nobody who he is
_HEARD = {
    "distributed": logging.CRITICAL,
    "distributed.client": logging.CRITICAL,
    "distributed.worker.memory": logging.WARNING,
    "distributed.nanny.memory": logging.WARNING,
}


@dataclasses.dataclass(frozen=True)
class Workers:
    """Who does the blocks of a command, as its flags name them."""

    count: int = 0  # 0: one a core of this machine
    memory: str = "auto"  # of each
    scheduler: str = ""  # address of a Dask scheduler; empty: processes of this machine
    tls: Tls | None = None  # what a scheduler at tls:// wants to see; None: as Dask's configuration says
    cluster: str = ""  # a queueing system, such as slurm: each worker is a job of it
    job: tuple[str, ...] = ()  # dask-jobqueue's options of those, such as queue=gpu
    dashboard: str = ""  # where Dask shows what it does, such as :8787

    def __post_init__(self) -> None:
        if self.scheduler and self.cluster:
            raise UserError("Expected one of --scheduler and --cluster, found both.")
        if self.tls and any(self.tls) and not self.scheduler:
            raise UserError("--tls_ca, --tls_cert and --tls_key are for a --scheduler at tls://, found none.")
        if self.job and not self.cluster:
            raise UserError(f"--job={self.job[0]}: expected --cluster, whose jobs these are, found none.")
        if self.count < 0:
            raise UserError(f"--workers: expected 1 or more, or 0 for one a core; found {self.count}.")

    @property
    def elsewhere(self) -> bool:
        """Whether they may be on other machines, with other devices."""
        return bool(self.scheduler or self.cluster)

    def open(self) -> contextlib.AbstractContextManager[Client]:
        return open_cluster(
            self.scheduler,
            self.count,
            memory=self.memory,
            dashboard=self.dashboard,
            system=self.cluster,
            job=self.job,
            tls=self.tls,
        )


@contextlib.contextmanager
def open_cluster(
    scheduler: str = "",
    workers: int = 0,
    threads_per_worker: int = 1,
    memory: str | float = "auto",
    *,
    dashboard: str = "",
    system: str = "",
    job: Sequence[str] = (),
    tls: Tls | None = None,
) -> Iterator[Client]:
    """Yields a client of the scheduler at an address; without one, of worker processes on this machine (0: one a core).

    `system`, such as `slurm`, makes each worker a job of a queueing system, by the options `job` (`jobs.open_jobs`).

    Workers run what they are sent, so those started here listen to this process alone, by TLS; a scheduler at `tls://`
    wants the files of `tls`. `memory` is the limit of each worker: bytes, text such as `4 GiB`, or a share of the
    machine's. `dashboard`, such as `:8787`, is where Dask shows what it does, to this machine unless it names a host. A
    program that calls this needs the usual `if __name__ == "__main__"`: workers are spawned, because TensorStore must
    not be forked.
    """
    if dashboard and not importlib.util.find_spec("bokeh"):
        raise UserError("Dask's dashboard needs bokeh: pip install 'emsam-jax[cluster]', or leave --dashboard out.")
    choose_what_to_hear()
    started = contextlib.ExitStack()
    with noticing_signals() as interruption:  # Dask, interrupted at this, has much to say
        if scheduler:
            client = connect(scheduler, tls or Tls())
        elif system:
            settings = ALLOCATOR | {f"DASK_{name.replace('.', '__').upper()}": "False" for name in KEEPING_NOTHING}
            options = [*(f"job_script_prologue=export {name}={value}" for name, value in settings.items()), *job]
            jobs = open_jobs(system, workers, threads_per_worker, str(memory), options, dashboard=dashboard)
            client = Client(started.enter_context(jobs), set_as_default=False)
        else:
            client = start(workers, threads_per_worker, memory, dashboard)
    try:
        if interruption.signal:
            raise StoppedError(f"Stopped by {interruption.signal}; the same command resumes.")
        yield client
    finally:
        with noticing_signals(), started:
            close(client)


def close(client: Client) -> None:
    cluster = client.cluster
    with contextlib.suppress(OSError, TimeoutError):  # nobody is left to be told
        client.close(timeout=_GOODBYE)
    if cluster is not None:
        cluster.close()


def connect(scheduler: str, tls: Tls) -> Client:
    try:
        return Client(scheduler, timeout=_PATIENCE, security=tls.of_client(), set_as_default=False)
    except (OSError, TimeoutError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        why = type(error).__name__ if isinstance(error, OSError | TimeoutError) else str(error).splitlines()[0]
        raise UserError(
            f"{scheduler}: expected the address of a Dask scheduler such as tcp://host:8786, or tls:// with --tls_ca, "
            f"--tls_cert and --tls_key, found that none answers ({why}); start one with `dask scheduler` or leave the "
            "address out."
        ) from None


def start(workers: int, threads_per_worker: int, memory: str | float, dashboard: str) -> Client:
    cores = usable_cores()
    check_memory(memory)
    config.set(_WORKERS if dashboard else _WORKERS | _NO_PAGES)
    try:
        with leaving_ctrl_c():
            cluster = LocalCluster(
                n_workers=workers or max(1, cores // threads_per_worker),
                threads_per_worker=threads_per_worker,
                memory_limit=memory,
                dashboard_address=on_loopback(dashboard),  # it must have some port, or it takes 8787 from others
                scheduler_kwargs={"dashboard": bool(dashboard)},
                silence_logs=False,  # would silence what memory has to say, too
                security=of_our_own(),
                worker_class=PatientNanny,
            )
    except RuntimeError as error:
        where = f" with the dashboard at {dashboard!r}, such as :8787," if dashboard else ""
        raise UserError(f"Expected to start workers{where} but found that it failed: {error.__cause__}.") from None
    client = Client(cluster, set_as_default=False)  # it is not for what the caller computes by Dask
    client.register_plugin(Quiet())
    return client


@contextlib.contextmanager
def leaving_ctrl_c() -> Iterator[None]:
    """Blocks Ctrl-C in the processes that are started inside; this thread alone receives it.

    A terminal sends Ctrl-C to all processes: the workers are to finish what they have, and the program ends them.
    """
    resource_tracker.ensure_running()  # of multiprocessing: it would unblock the signal as it begins
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_memory(memory: str | float) -> None:
    """Refuses a memory limit for which Dask would raise a traceback, or kill each worker as soon as it has started."""
    try:
        found = parse_bytes("1 GiB" if memory == "auto" else memory)
    except ValueError:
        found = -1
    share = isinstance(memory, float) and 0 < memory <= 1
    if found < _NEEDED and not share:
        least = f"and no less than {_NEEDED >> 20}MiB, which a worker takes before it has any block"
        raise UserError(f"Memory of a worker: expected such as 4GiB, or auto, {least}; found {memory!r}.")


class PatientNanny(Nanny):
    """Restarts a worker that is killed while it starts: Dask's own nanny would end the whole run."""

    async def instantiate(self) -> Status:
        result = Status.failed
        for _ in range(_STARTS):
            result = await super().instantiate()
            if result == Status.running or self.status in (Status.closing, Status.closed):
                break
        return result


class Quiet(WorkerPlugin):
    """Sets the log levels of a worker to those of the program."""

    name = "quiet"

    def setup(self, worker: Worker) -> None:
        choose_what_to_hear()


def choose_what_to_hear() -> None:
    """Silences Dask's messages about workers that come and go; warnings about memory stay."""
    for name, level in _HEARD.items():
        logging.getLogger(name).setLevel(level)
