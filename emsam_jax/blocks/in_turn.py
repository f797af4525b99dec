"""Does the blocks of a stage one after another in the calling process; without Dask."""

import time

from emsam_jax.blocks.block import Plan
from emsam_jax.blocks.group import Work, run_block
from emsam_jax.blocks.ledger import Ledger
from emsam_jax.blocks.progress import Progress, say_what_is_left
from emsam_jax.blocks.stage import Stage, StageReport
from emsam_jax.blocks.todo import find_todo


def run_in_turn(stage: Stage, plan: Plan, ledger_url: str, *, check: bool = True, progress: bool = True) -> StageReport:
    """Does what `dask.run_stage` does: a block that raises is recorded as failed, and the others are done."""
    began = time.monotonic()
    identity = stage.identity()
    ledger = Ledger(ledger_url, stage.name, identity)
    todo = find_todo(plan, ledger, stage.is_intact if check else None)
    say_what_is_left(stage.name, todo)
    work = Work(stage, plan, ledger_url, identity, ledger.run, retries=0, token=ledger.token)
    done, failed = 0, []
    with Progress(stage.name, todo, progress) as shown:
        for index in todo.indices:
            report = run_block(work, ledger, plan.at(index))
            shown.add(report)
            done += report.done
            failed += report.failed
    return StageReport(done, len(plan) - len(todo.indices), failed, time.monotonic() - began)
