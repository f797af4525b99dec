"""One run at a time on one output, wherever it lies: a lease in a key, renewed while the run lives."""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from emsam_jax.blocks.ledger import LedgerError
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.context import locking_context
from emsam_jax.volumes.errors import first_line
from emsam_jax.volumes.location import normalise, open_folder

_KEY = "running.json"
_RENEW, _STALE = 15.0, 120.0  # seconds; clocks of two machines may differ by less than a minute


class RunLock:
    """`with RunLock(url):`. A run that was killed on this machine is noticed at once, one elsewhere after 2 minutes."""

    def __init__(self, url: str):
        self.url = normalise(url)
        self._folder = open_folder(self.url, locking_context())
        self._stop = threading.Event()
        self._generation = b""
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "RunLock":
        found = self._folder.read(_KEY).result()
        if found.state == "value" and (holder := _parse(found.value)) and _alive(holder):
            raise LedgerError(
                f"{self.url}: another run is writing here (process {holder.get('pid')} on {holder.get('host')}, "
                f"since {holder.get('since')}); wait for its end or choose another output."
            )
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        if not self._write(found.stamp.generation):
            raise LedgerError(f"{self.url}: another run began to write here this moment; choose another output.")
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._keeper.join()
        self._folder.write(_KEY, None, if_equal=self._generation).result()

    def _keep(self) -> None:
        while not self._stop.wait(_RENEW):
            with contextlib.suppress(ValueError):  # storage out of reach: there are some more tries before it is stale
                self._write(self._generation)

    def _write(self, generation: bytes) -> bool:
        """Only over what was read there last: of two that try at once, one succeeds."""
        lease = {**_myself(), "since": self._since, "renewed": time.time()}
        try:
            stamp = self._folder.write(_KEY, json.dumps(lease).encode(), if_equal=generation).result()
        except ValueError as error:
            raise VolumeError(f"{self.url}/{_KEY} cannot be written: {first_line(error)}") from None
        if stamp.generation:  # empty: it was no longer so
            self._generation = stamp.generation
        return bool(stamp.generation)


def _myself() -> dict[str, Any]:
    return {"host": socket.gethostname(), "space": _space(), "pid": os.getpid(), "started": _started(os.getpid())}


def _space() -> str:
    """Process ids of one container mean nothing in another."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process began, so that another one with its old number is not taken for it; empty: there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]  # dead, but its parent has not asked yet


def _alive(holder: dict[str, Any]) -> bool:
    mine = _myself()
    if mine["started"] and (holder.get("host"), holder.get("space")) == (mine["host"], mine["space"]):
        return holder.get("started") == _started(int(holder.get("pid", 0)))
    return time.time() - float(holder.get("renewed", 0)) < _STALE


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        found, _ = json.JSONDecoder().raw_decode(content.decode())  # bytes of a killed writer may follow
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
