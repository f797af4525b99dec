"""Work on volumes in blocks: plan, ledger of what is done, lock, signals. Resumable; without jax.

`dask.run_stage` does a stage's blocks on the workers of `dask.open_cluster`; only this part needs Dask.
"""

from emsam_jax.blocks.block import Block, Plan, check_room, is_masked, plan_blocks
from emsam_jax.blocks.fingerprint import content_of, files_of, hash_of
from emsam_jax.blocks.group import GroupReport
from emsam_jax.blocks.in_turn import run_in_turn
from emsam_jax.blocks.interruption import LockLostError, noticing_signals, stopping_on_signals
from emsam_jax.blocks.ledger import Entry, Ledger, read_facts
from emsam_jax.blocks.lock import RunLock
from emsam_jax.blocks.progress import Progress, say_what_is_left
from emsam_jax.blocks.stage import (
    DROPPED,
    SKIPPED,
    Stage,
    checksum,
    describe_failures,
    drop_block,
    is_intact,
    write_block,
)
from emsam_jax.blocks.todo import Todo, describe_status, find_todo

__all__ = [
    "DROPPED",
    "SKIPPED",
    "Block",
    "Entry",
    "GroupReport",
    "Ledger",
    "LockLostError",
    "Plan",
    "Progress",
    "RunLock",
    "Stage",
    "Todo",
    "check_room",
    "checksum",
    "content_of",
    "describe_failures",
    "describe_status",
    "drop_block",
    "files_of",
    "find_todo",
    "hash_of",
    "is_intact",
    "is_masked",
    "noticing_signals",
    "plan_blocks",
    "read_facts",
    "run_in_turn",
    "say_what_is_left",
    "stopping_on_signals",
    "write_block",
]
