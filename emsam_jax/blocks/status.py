"""How far the stages of a run are, from the ledger alone: the run may be elsewhere, or over."""

from collections.abc import Mapping
from typing import NamedTuple

from emsam_jax.blocks.ledger import Ledger


class StageStatus(NamedTuple):
    name: str
    done: int
    total: int
    failed: dict[str, str]  # name of a block -> the last line of its traceback


def read_status(ledger_url: str, totals: Mapping[str, int]) -> list[StageStatus]:
    """Of the stages named, each with its number of blocks."""
    found = []
    for name, total in totals.items():
        ledger = Ledger.existing(ledger_url, name)
        found.append(
            StageStatus(name, len(ledger.done()), total, ledger.failures())
            if ledger
            else StageStatus(name, 0, total, {})
        )
    return found


def describe_status(ledger_url: str, totals: Mapping[str, int], *, most: int = 20) -> str:
    """A line a stage, and one for each failed block, of which at most so many are listed."""
    lines = []
    for stage in read_status(ledger_url, totals):
        failed = f", {len(stage.failed)} failed" if stage.failed else ""
        lines.append(f"{stage.name}: {stage.done} of {stage.total} blocks done{failed}")
        lines += [f"  {block}: {why}" for block, why in list(stage.failed.items())[:most]]
        if len(stage.failed) > most:
            lines.append(f"  and {len(stage.failed) - most} more")
    return "\n".join(lines)
