"""How a stage's run ended."""

from typing import NamedTuple

_LISTED = 20  # failed blocks that a message names


class StageReport(NamedTuple):
    done: int  # in this run
    skipped: int  # were done before it
    failed: list[tuple[str, str]]  # name of the block, last line of its traceback
    seconds: float


def describe_failures(stage: str, failed: list[tuple[str, str]]) -> str:
    lines = [f"{len(failed)} blocks of {stage} failed; the same command tries them again:"]
    lines += [f"  {block}  {why}" for block, why in failed[:_LISTED]]
    if len(failed) > _LISTED:
        lines.append(f"  and {len(failed) - _LISTED} more; --status lists them")
    return "\n".join(lines)
