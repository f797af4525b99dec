"""What is left to do: blocks without an entry, and those whose data is not what their entry says."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from emsam_jax.blocks.ledger import Entry, Ledger
from emsam_jax.blocks.plan import Block, Plan

_THREADS = 4


class Todo(NamedTuple):
    blocks: list[Block]  # in the plan's order
    damaged: list[Block]  # those of them that had an entry; it is gone


def find_todo(plan: Plan, ledger: Ledger, intact: Callable[[Block, Entry], bool] | None = None) -> Todo:
    """`intact` is asked about every entry; without it entries are believed, which costs no more than a listing."""
    done = ledger.done()
    kept = done
    if intact is not None and done:

        def check(block: Block) -> bool:
            entry = ledger.entry(block)
            return entry is not None and intact(block, entry)

        there = [block for block in plan if block.index in done]
        with ThreadPoolExecutor(_THREADS) as pool:
            kept = {block.index for block, good in zip(there, pool.map(check, there), strict=True) if good}
    todo = [block for block in plan if block.index not in kept]
    damaged = [block for block in todo if block.index in done]
    for block in damaged:
        ledger.forget(block)
    return Todo(todo, damaged)
