"""Allows one run at a time on one output, wherever it lies: a lease in a key, renewed while the run lives.

Whoever writes for the run compares the lease with the run's token first (`expect_lease`): a run that lost its lock, by
being out of touch for too long or because the key was deleted, notices that before it records another block.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

import tensorstore as ts

from emsam_jax.blocks.interruption import LockLostError
from emsam_jax.errors import UserError, first_line
from emsam_jax.storage import locking_context, normalise, open_folder, read_key

_KEY = "running.json"
_RENEW, _STALE = 15.0, 120.0  # seconds
_SKEW = 60.0  # seconds that the clocks of two machines may differ by
_TOKENS: dict[str, str] = {}  # of the locks that this process holds, by URL


@dataclasses.dataclass(frozen=True)
class Lease:
    host: str
    pid: int
    since: str
    renewed: float  # seconds since 1970, by the holder's clock
    space: str = ""  # process ids of one container mean nothing in another
    started: str = ""  # when the process began, so that another one with its old number is not taken for it
    token: str = ""  # the run's

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """A lock held inside `with RunLock(url):`. A killed run is noticed at once here, after 2 minutes elsewhere."""

    def __init__(self, url: str):
        self.url, self.token = normalise(url), uuid.uuid4().hex
        self._folder = open_folder(self.url, locking_context())
        self._stop = threading.Event()
        self._generation = b""
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "RunLock":
        found = self._read()
        holder = _parse(found.value) if found.state == "value" else None
        if holder and (_is_alive(holder) or (_is_ahead(holder) and self._is_renewed(found))):
            raise UserError(
                f"{self.url}/{_KEY}: another run is writing here ({holder}); wait for its end or choose another output."
            )
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        if not self._write(found.stamp.generation):
            raise UserError(f"{self.url}: another run began to write here this moment; choose another output.")
        _TOKENS[self.url] = self.token
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._keeper.join()
        if _TOKENS.get(self.url) == self.token:
            del _TOKENS[self.url]
        with contextlib.suppress(ValueError):  # storage out of reach: the lease becomes stale
            self._folder.write(_KEY, None, if_equal=self._generation).result()

    def check(self) -> None:
        """Raises LockLostError where the lease is no longer this run's."""
        expect_lease(self._folder, self.token)

    def _keep(self) -> None:
        while not self._stop.wait(_RENEW):
            with contextlib.suppress(ValueError):  # storage out of reach: there are some more tries before it is stale
                if self._write(self._generation):
                    continue
                found = self._read()  # written, perhaps, though the answer was lost
                if not _is_of(found.value, self.token):
                    return
                self._generation = found.stamp.generation

    def _is_renewed(self, before: ts.KvStore.ReadResult) -> bool:
        """Watches whether the lease is renewed: where a clock runs fast, its age tells nothing."""
        seconds = 2 * _RENEW
        print(f"{self.url}/{_KEY}: dated in the future; watching for {seconds:.0f} s who renews it.", file=sys.stderr)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, _RENEW))
            if self._read().stamp.generation != before.stamp.generation:
                return True
        return False

    def _read(self) -> ts.KvStore.ReadResult:
        try:
            return self._folder.read(_KEY).result()
        except ValueError as error:
            raise UserError(f"{self.url}/{_KEY} cannot be read: {first_line(error)}") from None

    def _write(self, generation: bytes) -> bool:
        """Writes the lease if it is unchanged since it was read: of two runs that try at once, one succeeds."""
        lease = Lease(socket.gethostname(), os.getpid(), self._since, time.time(), *_myself(), self.token)
        content = json.dumps(dataclasses.asdict(lease)).encode()
        try:
            stamp = self._folder.write(_KEY, content, if_equal=generation).result()
        except ValueError as error:
            raise UserError(f"{self.url}/{_KEY} cannot be written: {first_line(error)}") from None
        if stamp.generation:  # empty: it was no longer so
            self._generation = stamp.generation
        return bool(stamp.generation)


def token_at(url: str) -> str:
    """Returns the token of the lock that this process holds there; empty where it holds none."""
    return _TOKENS.get(normalise(url), "")


def expect_lease(folder: ts.KvStore, token: str) -> None:
    """Raises LockLostError where the lease in the folder is not the token's."""
    content = read_key(folder, _KEY)
    if content is not None and _is_of(content, token):
        return
    holder = None if content is None else _parse(content)
    found = "none" if content is None else f"another run's ({holder})" if holder else "a damaged one"
    raise LockLostError(
        f"{folder.url.rstrip('/')}/{_KEY}: expected this run's lease, found {found}; the run stops here. Once no other "
        "run writes there, the same command resumes."
    )


def _is_of(content: bytes, token: str) -> bool:
    lease = _parse(content)
    return lease is not None and lease.token == token


def _myself() -> tuple[str, str]:
    """Returns the PID namespace and this process's start time; empty where the system does not tell."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()), _started(os.getpid())
    except OSError:
        return "", ""


def _started(pid: int) -> str:
    """Returns the start time of a process; empty where there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]  # dead, but its parent has not asked yet


def _is_here(holder: Lease) -> bool:
    space, started = _myself()
    return bool(started) and (holder.host, holder.space) == (socket.gethostname(), space)


def _is_alive(holder: Lease) -> bool:
    if _is_here(holder):
        return holder.started == _started(holder.pid)
    return -_SKEW < time.time() - holder.renewed < _STALE


def _is_ahead(holder: Lease) -> bool:
    return not _is_here(holder) and holder.renewed - time.time() >= _SKEW


def _parse(content: bytes) -> Lease | None:
    """Parses a lease; None where it is damaged, as if nobody held it."""
    kinds = {"host": str, "pid": int, "since": str, "renewed": (int, float), "space": str, "started": str, "token": str}
    try:
        found, _ = json.JSONDecoder().raw_decode(content.decode())  # bytes of a killed writer may follow
        lease = Lease(**{name: value for name, value in found.items() if isinstance(value, kinds.get(name, ()))})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return lease if 0 <= lease.renewed < 1e12 else None
