"""Ctrl-C and SIGTERM as something to look at between two steps; the second Ctrl-C interrupts at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Which signal came; empty while none has."""

    signal = ""


@contextlib.contextmanager
def noticing_signals() -> Iterator[Interruption]:
    """Outside the main thread Python leaves signals to others, and so does this."""
    noticed = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    def notice(number: int, frame: FrameType | None) -> None:
        if noticed.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        noticed.signal = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"

    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noticed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
