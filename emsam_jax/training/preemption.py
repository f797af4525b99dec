"""Notices that the machine is about to be taken away (SIGTERM), or that the user wants to stop (Ctrl-C)."""

import contextlib
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

from emsam_jax.errors import EXIT_STOPPED


class Preempted(SystemExit):
    """The run stopped early, with everything saved."""

    def __init__(self, step: int):
        super().__init__(EXIT_STOPPED)
        self.step = step


class Notice(contextlib.AbstractContextManager["Notice"]):
    """Notices a signal. One process has a handler of its own; of several, jax passes the signal of one on to all, so
    that they stop after the same step, by a handler that ours would hide.
    """

    def __init__(self) -> None:
        self.given = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Notice":
        if jax.process_count() == 1:
            self._before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[reportArgumentType]

    def reached(self, step: int) -> bool:
        """Returns whether to save and stop after this step; every process asks after every step."""
        if jax.process_count() == 1:
            return self.given
        return multihost_utils.reached_preemption_sync_point(step)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.given = True
        signal.signal(number, signal.SIG_DFL)  # a second one ends at once
