"""Prints a stage's progress: what is done already, then blocks, voxels, their rates, and the time left."""

import sys
import time

from tqdm import tqdm

from emsam_jax.blocks.group import GroupReport
from emsam_jax.blocks.todo import Todo

_IN_A_FILE = 10.0  # seconds between two lines


def say_what_is_left(name: str, todo: Todo) -> None:
    """Prints how many blocks are done and left, where some are done."""
    left, total = len(todo.indices), len(todo.plan)
    if left == total and not todo.damaged:
        return
    again = f"; {len(todo.damaged)} of them damaged, to be done again" if todo.damaged else ""
    rest = f"{left} are left" if left else "nothing is left to do"
    print(f"{name}: {total - left} of {total} blocks are done{again}; {rest}.", file=sys.stderr)


class Progress:
    """A progress bar of voxels, because blocks at the volume's end are smaller, with the count of blocks."""

    def __init__(self, name: str, todo: Todo, shown: bool):
        self._total, self._before = len(todo.plan), len(todo.plan) - len(todo.indices)
        self._name, self._note = name, ""
        self._done, self._failed, self._began = 0, 0, time.monotonic()
        self._ahead = 0.0  # voxels that are shown, of blocks that are not done
        voxels = todo.plan.region.voxels
        self._bar = tqdm(
            desc=name,
            total=voxels,
            initial=voxels - sum(todo.plan.at(index).box.voxels for index in todo.indices),
            unit="voxel",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else _IN_A_FILE,
            disable=not shown,
            file=sys.stderr,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, voxels: float) -> None:
        """Moves the bar within a block, where blocks take long."""
        self._ahead += voxels
        self._move(voxels)

    def _move(self, voxels: int | float) -> None:
        """Moves the bar by a fraction, but not past its end: fractions may sum up to a little more than the whole."""
        self._bar.update(min(voxels, self._bar.total - self._bar.n))

    def add(self, report: GroupReport, note: str = "") -> None:
        """Adds a block. A note is printed once, until it changes."""
        self._done += report.done
        self._failed += len(report.failed)
        rate = self._done / (time.monotonic() - self._began)
        text = f"{self._before + self._done} of {self._total} blocks, {tqdm.format_sizeof(rate)} blocks/s"
        text += f", {self._failed} failed" if self._failed else ""
        self._bar.set_postfix_str(text, refresh=False)
        shown = min(self._ahead, report.voxels)
        self._ahead -= shown
        self._move(report.voxels - shown)
        if note and note != self._note:
            tqdm.write(f"{self._name}: {note}", file=sys.stderr)
        self._note = note
