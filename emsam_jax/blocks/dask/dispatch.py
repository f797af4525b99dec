"""Sends groups of blocks to workers and takes back their reports, with only as many in flight as keep workers busy."""

import contextlib
import itertools
import math
import queue
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import cloudpickle
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from emsam_jax.blocks.group import GroupReport, Starts, Work, keep_failure, run_alone, run_group, worker_died
from emsam_jax.blocks.interruption import LockLostError
from emsam_jax.blocks.ledger import Ledger
from emsam_jax.errors import StoppedError
from emsam_jax.volumes import Voxel

_A_THREAD = 2  # groups in flight for each: one is worked on, the other queued
_ASK = 5.0  # seconds between two looks at how many workers there are
Resources = Mapping[str, float]  # as workers declare them, such as `dask worker --resources GPU=1`


class GoneError(StoppedError):
    def __init__(self) -> None:
        super().__init__("The scheduler no longer answers; the same command resumes.")


class Task(NamedTuple):
    name: str  # of a group; empty for a block alone
    indices: tuple[Voxel, ...]
    killed: int = 0  # how often Dask gave it up because its workers died

    @property
    def alone(self) -> bool:
        return not self.name


class Dispatch:
    """Takes blocks from `waiting` as workers have room for them, so that no list of all futures is ever held."""

    def __init__(
        self,
        client: Client,
        work: Work,
        ledger: Ledger,
        waiting: deque[Voxel],
        *,
        group: int,
        in_flight: int,
        resources: Resources | None = None,
    ):
        self._client, self._work, self._ledger = client, work, ledger
        self._resources = resources or {}
        self._pickled = cloudpickle.dumps(work)  # once: a stage may be defined in a program of its user's
        self._waiting, self._suspects = waiting, deque[Voxel]()
        self._group, self._in_flight = group, in_flight
        self._running: dict[str, tuple[Future, Task]] = {}
        self._finished: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._starts = Starts(work.ledger_url, work.stage.name, work.run)
        self._numbers = itertools.count()
        self._threads, self._asked = 0, -math.inf

    @property
    def over(self) -> bool:
        return not (self._running or self._waiting or self._suspects)

    @property
    def running(self) -> bool:
        return bool(self._running)

    @property
    def threads(self) -> int:
        """Counts the threads of all workers that have the resources; 0 while there are none."""
        if time.monotonic() - self._asked > _ASK:
            with contextlib.suppress(GoneError):  # what that means is found out where results are collected
                self._threads = count_threads(self._client, self._resources)
            self._asked = time.monotonic()
        return self._threads

    def submit(self) -> None:
        """Submits groups until the workers' queues are full."""
        room = max(self._in_flight, _A_THREAD * self.threads)
        if self._suspects and not any(task.alone for _, task in self._running.values()):
            self._send(Task("", (self._suspects.popleft(),)))  # one at a time, or they would be suspected of each other
        while len(self._running) < room and self._waiting:
            size = min(self._group, math.ceil(len(self._waiting) / (2 * room)))  # the last ones small, for all to share
            indices = tuple(self._waiting.popleft() for _ in range(size))
            self._send(Task(f"group-{next(self._numbers)}", indices))

    def collect(self, seconds: float) -> GroupReport:
        """Returns the report of a group that has ended within the timeout; an empty one otherwise."""
        try:
            key = self._finished.get(timeout=seconds)
        except queue.Empty:
            if self._client.status != "running":
                raise GoneError() from None
            return GroupReport()
        future, task = self._running.pop(key)
        try:
            report: GroupReport = future.result()
        except KilledWorker:
            return self._again(task)
        except CancelledError:
            raise GoneError() from None
        except LockLostError as lost:
            raise lost.with_traceback(None) from None
        except Exception as error:  # the stage's own are in the report: this one came before the first block
            if self._client.status != "running":
                raise GoneError() from None
            return self._all_failed(task, error)
        self._waiting.extendleft(reversed(report.left))
        self._suspects.extend(report.suspects)
        return report

    def cancel(self) -> None:
        if self._client.status == "running":
            with contextlib.suppress(OSError, TimeoutError):
                self._client.cancel([future for future, _ in self._running.values()])
        self._running.clear()

    def _send(self, task: Task) -> None:
        key = f"{self._work.stage.name}-{self._work.run}-{next(self._numbers)}"
        how: dict[str, Any] = {"key": key, "pure": False, "resources": dict(self._resources) or None}
        if task.alone:
            future = self._client.submit(run_alone, self._pickled, task.indices[0], **how)
        else:
            future = self._client.submit(run_group, self._pickled, task.name, task.indices, **how)
        self._running[key] = future, task
        future.add_done_callback(lambda done: self._finished.put(done.key))

    def _again(self, task: Task) -> GroupReport:
        """Submits blocks again whose group Dask gave up because workers died: not each of them need be the cause."""
        task, retries = task._replace(killed=task.killed + 1), self._work.retries
        if not task.alone:
            if task.killed <= retries:
                self._send(task)
            else:
                self._suspects.extend(task.indices)
            return GroupReport()
        block = self._work.plan.at(task.indices[0])
        died = self._starts.count(block.name)  # Dask also gives up what a worker had not begun when it died
        if died < retries and task.killed <= 2 * retries:
            self._send(task)
            return GroupReport()
        return self._all_failed(task, worker_died(block, died or task.killed))

    def _all_failed(self, task: Task, error: Exception) -> GroupReport:
        report = GroupReport()
        for block in map(self._work.plan.at, task.indices):
            if self._ledger.entry(block) is None:
                report += GroupReport(failed=(keep_failure(self._ledger, block, error),))
            else:
                report += GroupReport(1, block.box.voxels)
        return report


def count_threads(client: Client, resources: Resources) -> int:
    """Counts the threads of workers that can run at once, if each uses all of the resources that are asked for."""
    if client.scheduler is None:  # Dask has given up asking for it
        raise GoneError()
    try:
        found: Any = client.sync(client.scheduler.identity, callback_timeout=_ASK)
    except (OSError, TimeoutError):
        raise GoneError() from None
    return sum(
        min([worker["nthreads"], *(int(worker["resources"].get(name, 0) // n) for name, n in resources.items())])
        for worker in found["workers"].values()
    )
