"""Work on volumes in blocks that may stop at any time and goes on where it stopped. No jax.

`engine.run_stage` does a stage's blocks on the workers of `cluster.open_cluster`; only these two need Dask.
"""

from emsam_jax.blocks.content import content_of, files_of
from emsam_jax.blocks.errors import EngineError, LedgerError, LockLostError, StoppedError
from emsam_jax.blocks.in_turn import run_in_turn
from emsam_jax.blocks.ledger import Entry, Ledger, Status
from emsam_jax.blocks.lock import RunLock
from emsam_jax.blocks.plan import Block, Plan, is_masked, plan_blocks
from emsam_jax.blocks.report import StageReport
from emsam_jax.blocks.room import check_room
from emsam_jax.blocks.stage import Stage
from emsam_jax.blocks.status import StageStatus, describe_status, read_status
from emsam_jax.blocks.todo import Todo, find_todo
from emsam_jax.blocks.written import DROPPED, EMPTY, SKIPPED, drop_block, is_intact, write_block

__all__ = [
    "DROPPED",
    "EMPTY",
    "SKIPPED",
    "Block",
    "EngineError",
    "Entry",
    "Ledger",
    "LedgerError",
    "LockLostError",
    "Plan",
    "RunLock",
    "Stage",
    "StageReport",
    "StageStatus",
    "Status",
    "StoppedError",
    "Todo",
    "check_room",
    "content_of",
    "describe_status",
    "drop_block",
    "files_of",
    "find_todo",
    "is_intact",
    "is_masked",
    "plan_blocks",
    "read_status",
    "run_in_turn",
    "write_block",
]
