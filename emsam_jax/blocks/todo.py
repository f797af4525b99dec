"""Finds what is left to do of a stage, and its pace, from the ledger alone: the run may be elsewhere, or over."""

import datetime
import itertools
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from emsam_jax.blocks.block import Block, Plan
from emsam_jax.blocks.ledger import Entry, Ledger
from emsam_jax.volumes import Voxel

_THREADS = 4
_AT_ONCE = 10_000  # checks that are waiting for a thread
_SAMPLE = 200  # entries that are read: of millions of blocks reading all would take minutes


class Todo(NamedTuple):
    plan: Plan
    indices: list[Voxel]  # in the plan's order; of millions of blocks there is no room for more
    damaged: list[Block]  # those of them that had an entry; it is gone

    @property
    def blocks(self) -> list[Block]:
        return list(map(self.plan.at, self.indices))


def find_todo(plan: Plan, ledger: Ledger, intact: Callable[[Block, Entry], bool] | None = None) -> Todo:
    """Finds the blocks to do. `intact` checks each entry's data; without it a listing is trusted."""
    done = ledger.done()
    kept = done
    if intact is not None and done:

        def check(index: Voxel) -> bool:
            block = plan.at(index)
            entry = ledger.entry(block)
            return entry is not None and intact(block, entry)

        there, kept = [index for index in plan.indices() if index in done], set()
        with ThreadPoolExecutor(_THREADS) as pool:
            for first in range(0, len(there), _AT_ONCE):
                some = there[first : first + _AT_ONCE]
                kept.update(itertools.compress(some, pool.map(check, some)))
    todo = [index for index in plan.indices() if index not in kept]
    damaged = [plan.at(index) for index in todo if index in done]
    for block in damaged:
        ledger.forget(block)
    return Todo(plan, todo, damaged)


class Pace(NamedTuple):
    """Blocks a second of the newest run, over the later half of what it did."""

    blocks_a_second: float
    newest: datetime.datetime  # when its last block was done, of those looked at


class StageStatus(NamedTuple):
    name: str
    done: int
    total: int
    failed: dict[str, str]  # name of a block -> the last line of its traceback
    pace: Pace | None  # None where too little is done to tell


def read_status(ledger_url: str, plans: Mapping[str, Plan]) -> list[StageStatus]:
    """Reads how far each of the named stages is."""
    found = []
    for name, plan in plans.items():
        ledger = Ledger.existing(ledger_url, name)
        done = {index for index in ledger.done() if plan.has(index)} if ledger else set()
        failures = ledger.failures() if ledger else {}
        pace = measure_pace(ledger, plan, done) if ledger else None
        found.append(StageStatus(name, len(done), len(plan), failures, pace))
    return found


def measure_pace(ledger: Ledger, plan: Plan, done: set[Voxel]) -> Pace | None:
    sample = random.Random(0).sample(sorted(done), min(_SAMPLE, len(done)))
    entries = [entry for index in sample if (entry := ledger.entry(plan.at(index)))]
    newest = max(entries, key=lambda entry: entry.at, default=None)
    times = sorted(datetime.datetime.fromisoformat(entry.at) for entry in entries if newest and entry.run == newest.run)
    later = times[len(times) // 2 :]
    seconds = (later[-1] - later[0]).total_seconds() if later else 0
    if not seconds:
        return None
    return Pace(len(done) * (len(later) - 1) / len(entries) / seconds, later[-1])


def describe_status(ledger_url: str, plans: Mapping[str, Plan], *, most: int = 20) -> str:
    """Formats a line a stage, and one for each failed block, `most` of them at most."""
    lines = []
    for stage in read_status(ledger_url, plans):
        lines.append(
            f"{stage.name}: {stage.done} of {stage.total} blocks done{describe_rest(stage, plans[stage.name])}"
        )
        lines += [f"  {block}: {why}" for block, why in list(stage.failed.items())[:most]]
        if len(stage.failed) > most:
            lines.append(f"  and {len(stage.failed) - most} more")
    return "\n".join(lines)


def describe_rest(stage: StageStatus, plan: Plan) -> str:
    parts = [f"{len(stage.failed)} failed"] if stage.failed else []
    left = stage.total - stage.done
    if stage.pace and left:
        blocks = stage.pace.blocks_a_second
        voxels = tqdm.format_sizeof(blocks * plan.region.voxels / len(plan))
        parts.append(f"{tqdm.format_sizeof(blocks)} blocks/s, {voxels} voxels/s")
        parts.append(f"{tqdm.format_interval(left / blocks)} left at that pace")
        parts.append(f"last done {stage.pace.newest:%Y-%m-%d %H:%M:%S} UTC")
    return "".join(f", {part}" for part in parts)
