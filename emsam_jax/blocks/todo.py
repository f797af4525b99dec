"""What is left to do: blocks without an entry, and those whose data is not what their entry says."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from emsam_jax.blocks.ledger import Entry, Ledger
from emsam_jax.blocks.plan import Block, Plan
from emsam_jax.volumes.box import Voxel

_THREADS = 4
_AT_ONCE = 10_000  # checks that are waiting for a thread


class Todo(NamedTuple):
    plan: Plan
    indices: list[Voxel]  # in the plan's order; of millions of blocks there is no room for more
    damaged: list[Block]  # those of them that had an entry; it is gone

    @property
    def blocks(self) -> list[Block]:
        return list(map(self.plan.at, self.indices))


def find_todo(plan: Plan, ledger: Ledger, intact: Callable[[Block, Entry], bool] | None = None) -> Todo:
    """`intact` is asked about every entry; without it entries are believed, which costs no more than a listing."""
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
