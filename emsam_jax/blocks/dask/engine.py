"""Does the blocks of a stage on the workers of a Dask cluster; what is done stays done, whatever is killed."""

import math
import time
from collections import deque
from collections.abc import Iterator

from distributed import Client

from emsam_jax.blocks.block import Plan
from emsam_jax.blocks.dask.dispatch import Dispatch, GoneError, Resources
from emsam_jax.blocks.group import GroupReport, Starts, Work
from emsam_jax.blocks.interruption import Interruption, noticing_signals
from emsam_jax.blocks.ledger import Ledger
from emsam_jax.blocks.progress import Progress, say_what_is_left
from emsam_jax.blocks.stage import Stage, StageReport
from emsam_jax.blocks.todo import find_todo
from emsam_jax.errors import StoppedError

_LOOK = 0.5  # seconds between two looks at signals and at the scheduler
_GRACE = 5.0  # seconds that those at work have to finish, once the run is to stop


class StageStoppedError(StoppedError):
    """Carries what was done until the run was stopped."""

    def __init__(self, reason: str, stage: str, report: StageReport, left: int):
        total = report.done + report.skipped + len(report.failed) + left
        super().__init__(f"{reason}: {left} of {total} blocks of {stage} are left; the same command resumes.")
        self.report, self.left = report, left


def run_stage(
    client: Client,
    stage: Stage,
    plan: Plan,
    ledger_url: str,
    *,
    group: int = 64,
    in_flight: int = 4,
    retries: int = 3,
    check: bool = True,
    progress: bool = True,
    resources: Resources | None = None,
) -> StageReport:
    """Does the blocks that are not done yet, in groups of at most `group`, with `in_flight` of these or two a worker's
    thread.

    A group is handed back after two seconds with the blocks that it has not begun. The stage travels with each group:
    what is large, the stage opens when it is run, and may keep, because a worker uses one copy of it for the whole run.

    A block that raises is recorded as failed, and so is one whose worker died `retries` times while it did nothing
    else. `check` compares finished blocks with their checksums. Only workers that declare `resources` get blocks.
    Raises StageStoppedError where blocks are left untried, and LockLostError where the caller's RunLock is no longer
    its own.
    """
    began = time.monotonic()
    identity = stage.identity()
    ledger = Ledger(ledger_url, stage.name, identity)
    todo = find_todo(plan, ledger, stage.is_intact if check else None)
    say_what_is_left(stage.name, todo)
    waiting, skipped = deque(todo.indices), len(plan) - len(todo.indices)
    shown = Progress(stage.name, todo, progress)
    del todo
    starts = Starts(ledger_url, stage.name, ledger.run)
    starts.clear()
    work = Work(stage, plan, ledger_url, identity, ledger.run, retries, ledger.token)
    done, failed, reason = 0, [], ""
    with shown, noticing_signals() as interruption:
        dispatch = Dispatch(client, work, ledger, waiting, group=group, in_flight=in_flight, resources=resources)
        try:
            for report in run_groups(dispatch, interruption):
                done += report.done
                failed += report.failed
                shown.add(report, "" if dispatch.threads else "there are no workers; waiting for them.")
        except GoneError:
            reason = "The scheduler no longer answers"
        finally:
            dispatch.cancel()
    starts.clear()
    result = StageReport(done, skipped, sorted(failed), time.monotonic() - began)
    left = len(plan) - skipped - done - len(failed)
    if left:
        raise StageStoppedError(reason or f"Stopped by {interruption.signal}", stage.name, result, left)
    return result


def run_groups(dispatch: Dispatch, interruption: Interruption) -> Iterator[GroupReport]:
    """Yields reports until all blocks are tried; after a signal, until the running groups have ended or timed out."""
    stopped = math.inf
    while not dispatch.over:
        if not interruption.signal:
            dispatch.submit()
        elif not dispatch.running or time.monotonic() - stopped > _GRACE:
            return
        else:
            stopped = min(stopped, time.monotonic())
        yield dispatch.collect(_LOOK)
