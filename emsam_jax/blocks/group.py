"""Does a group of blocks on a worker: records each as done, or keeps its traceback and does the others."""

import contextlib
import dataclasses
import functools
import pickle
import threading
import time
import traceback
from typing import Any

import tensorstore as ts

from emsam_jax.blocks.block import Block, Plan
from emsam_jax.blocks.interruption import LockLostError
from emsam_jax.blocks.ledger import Ledger
from emsam_jax.blocks.stage import Stage
from emsam_jax.errors import UserError
from emsam_jax.storage import normalise, open_folder, read_key, set_cache_limit, write_key
from emsam_jax.volumes import Voxel

_ENOUGH = 2.0  # seconds, after which a group is handed back: long blocks are spread evenly and seen to progress
_CACHE = 4 << 20  # bytes: for the indices of shards. What is kept of a block is of no use to the next ones
_ONE_AT_A_TIME = threading.Lock()


class Starts:
    def __init__(self, ledger_url: str, stage: str, run: str):
        self._folder = open_folder(normalise(ledger_url))
        self._begun, self._mine = f"{stage}/begun/", f"{stage}/begun/{run}/"

    def count(self, name: str) -> int:
        return int(read_key(self._folder, self._mine + name) or 0)

    def set(self, name: str, count: int) -> None:
        write_key(self._folder, self._mine + name, str(count).encode())

    def clear(self) -> None:
        """Deletes the marks of this run and all earlier ones; those that stay do no harm: names carry the run."""
        with contextlib.suppress(ValueError):
            self._folder.delete_range(ts.KvStore.KeyRange(self._begun, self._begun[:-1] + "0")).result()


@dataclasses.dataclass(frozen=True)
class Work:
    """The parameters that all groups of a run share."""

    stage: Stage
    plan: Plan
    ledger_url: str
    identity: dict[str, Any]
    run: str
    retries: int
    token: str = ""  # of the lock that the process has which hands out the groups


@dataclasses.dataclass(frozen=True)
class GroupReport:
    done: int = 0
    voxels: int = 0
    failed: tuple[tuple[str, str], ...] = ()  # name of the block, last line of its traceback
    left: tuple[Voxel, ...] = ()  # there was no time for these
    suspects: tuple[Voxel, ...] = ()  # these may have killed their worker

    def __add__(self, other: "GroupReport") -> "GroupReport":
        names = [field.name for field in dataclasses.fields(self)]
        return GroupReport(**{name: getattr(self, name) + getattr(other, name) for name in names})


class WorkerDiedError(RuntimeError):
    """Stands for the traceback that a dead worker could not write."""


def run_group(pickled: bytes, name: str, indices: tuple[Voxel, ...]) -> GroupReport:
    """Does the blocks one after another. A second call with a name finds out what the worker that died had done."""
    work, ledger, starts = opened(pickled)
    if starts.count(name):
        return look_back(work, ledger, indices)
    ledger.expect_lease()
    starts.set(name, 1)
    report, began = GroupReport(), time.monotonic()
    for n, index in enumerate(indices):
        if n and time.monotonic() - began > _ENOUGH:
            return report + GroupReport(left=indices[n:])
        report += run_block(work, ledger, work.plan.at(index))
    return report


def look_back(work: Work, ledger: Ledger, indices: tuple[Voxel, ...]) -> GroupReport:
    """Finds the block at which a worker died: the first that is neither done nor failed; later ones had not begun."""
    report = GroupReport()
    for n, block in enumerate(map(work.plan.at, indices)):
        if ledger.entry(block) is not None:
            report += GroupReport(1, block.box.voxels)
            continue
        report += GroupReport(suspects=(block.index,))
        if ledger.traceback_of(block) is None:  # what there is may be left from an earlier run
            return report + GroupReport(left=indices[n + 1 :])
    return report


def run_alone(pickled: bytes, index: Voxel) -> GroupReport:
    """Does a block that may have killed its worker; after the last retry, records it as failed."""
    work, ledger, starts = opened(pickled)
    block = work.plan.at(index)
    if ledger.entry(block) is not None:
        return GroupReport(1, block.box.voxels)
    died = starts.count(block.name)
    if died >= work.retries:
        return GroupReport(failed=(keep_failure(ledger, block, worker_died(block, died)),))
    ledger.expect_lease()
    starts.set(block.name, died + 1)
    report = run_block(work, ledger, block)
    starts.set(block.name, died)
    return report


def run_block(work: Work, ledger: Ledger, block: Block) -> GroupReport:
    began = time.monotonic()
    try:
        checksum = work.stage.run(block)
        ledger.record(block, checksum, time.monotonic() - began)
    except LockLostError:
        raise
    except Exception as error:
        return GroupReport(failed=(keep_failure(ledger, block, error),))
    return GroupReport(1, block.box.voxels)


def keep_failure(ledger: Ledger, block: Block, error: BaseException) -> tuple[str, str]:
    try:
        ledger.fail(block, error)
    except UserError as other:  # a full disk takes no traceback either; the report still has the line
        error.add_note(f"{last_line(error)} (its traceback could not be kept: {other})")
    return block.name, last_line(error)


def worker_died(block: Block, times: int) -> WorkerDiedError:
    return WorkerDiedError(
        f"The worker died {times} times while it did block {block.name} alone: it was out of memory, or a library "
        "crashed; give each worker more memory or choose smaller blocks."
    )


def last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def opened(pickled: bytes) -> tuple[Work, Ledger, Starts]:
    """Opens a stage once a worker, so that what it keeps (its model, its volumes) lasts for the run."""
    with _ONE_AT_A_TIME:
        return _open(pickled)


@functools.lru_cache(maxsize=1)
def _open(pickled: bytes) -> tuple[Work, Ledger, Starts]:
    set_cache_limit(_CACHE)
    work: Work = pickle.loads(pickled)
    ledger = Ledger(work.ledger_url, work.stage.name, work.identity, work.token)
    ledger.run = work.run
    return work, ledger, Starts(work.ledger_url, work.stage.name, work.run)
