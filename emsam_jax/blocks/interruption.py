"""Handles Ctrl-C and SIGTERM: notices them between two steps, or ends whatever is running."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from emsam_jax.errors import StoppedError, UserError


class LockLostError(UserError):
    """Another run holds the lock of the output by now: nothing more may be written."""


class Interruption:
    """The name of the signal that came; empty while none has."""

    signal = ""


@contextlib.contextmanager
def noticing_signals() -> Iterator[Interruption]:
    """Notes signals; a second Ctrl-C interrupts at once. Only in the main thread does Python allow handlers."""
    noticed = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    def notice(number: int, frame: FrameType | None) -> None:
        if noticed.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        noticed.signal = _name(number)

    with _handling(notice):
        yield noticed


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raises StoppedError at either signal, as soon as Python can. For the main thread."""
    came = "Ctrl-C"

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = _name(number)
        raise KeyboardInterrupt

    with _handling(interrupt):
        try:
            yield
        except KeyboardInterrupt:
            raise StoppedError(f"Stopped by {came}; the same command resumes.") from None


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
