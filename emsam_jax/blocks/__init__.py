"""Work on volumes in blocks that may stop at any time and goes on where it stopped. No jax."""

from emsam_jax.blocks.content import content_of
from emsam_jax.blocks.ledger import Entry, Ledger, LedgerError, Status
from emsam_jax.blocks.lock import RunLock
from emsam_jax.blocks.plan import Block, Plan, is_masked, plan_blocks
from emsam_jax.blocks.stage import Stage
from emsam_jax.blocks.todo import Todo, find_todo
from emsam_jax.blocks.written import DROPPED, EMPTY, SKIPPED, drop_block, is_intact, write_block

__all__ = [
    "DROPPED",
    "EMPTY",
    "SKIPPED",
    "Block",
    "Entry",
    "Ledger",
    "LedgerError",
    "Plan",
    "RunLock",
    "Stage",
    "Status",
    "Todo",
    "content_of",
    "drop_block",
    "find_todo",
    "is_intact",
    "is_masked",
    "plan_blocks",
    "write_block",
]
