"""Where a volume lies: a local path or a URL, as a TensorStore key-value store, and as a seekable file."""

import io
import re
import threading
from pathlib import Path
from typing import Any

import tensorstore as ts

from emsam_jax.volumes.context import shared_context
from emsam_jax.volumes.errors import VolumeError

_SCHEMES = ("file", "gs", "s3", "http", "https", "memory")
_READ_AHEAD = 1 << 16  # bytes


def is_remote(url: str) -> bool:
    return re.match(r"[a-z0-9]+://", url) is not None


def normalise(url: str) -> str:
    """Without trailing slashes; what lies on this machine as an absolute path."""
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    if not is_remote(url):
        return str(Path(url).expanduser().absolute())
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise VolumeError(f"{url}: expected a path or a URL that starts with {', '.join(_SCHEMES)}; found {scheme}://.")
    return url.rstrip("/")


def folder_spec(url: str) -> dict[str, Any]:
    """The key-value store whose keys are the files under `url`, as TensorStore's JSON."""
    if not is_remote(url):
        return {"driver": "file", "path": url.rstrip("/") + "/"}
    return ts.KvStore.Spec(url + "/").to_json()


def open_folder(url: str) -> ts.KvStore:
    return ts.KvStore.open(folder_spec(url), context=shared_context()).result()


def split_last(url: str) -> tuple[str, str]:
    """Parent and last name. The parent is empty when there is none: of / and of a host or bucket."""
    parent, _, name = url.rpartition("/")
    return ("", name) if parent.endswith(":/") or not parent else (parent, name)


def read_key(folder: ts.KvStore, key: str, first_bytes: int | None = None) -> bytes | None:
    """The content, or its first bytes; None where there is no such file."""
    try:
        span = None if first_bytes is None else slice(0, first_bytes)
        found = folder.read(key, byte_range=span).result()
    except ValueError as error:
        if "OUT_OF_RANGE" in str(error):  # shorter than what was asked for
            return read_key(folder, key)
        if "NOT_FOUND" in str(error) or "Is a directory" in str(error) or "Not a directory" in str(error):
            return None
        raise VolumeError(f"{folder.url}{key} cannot be read: {first_line(error)}") from None
    return found.value if found.state == "value" else None


def first_line(error: BaseException) -> str:
    """TensorStore adds the whole specification and the source's lines; users need neither."""
    return re.split(r"\s\[(?=\w+=|source)", str(error).splitlines()[0])[0] if str(error) else type(error).__name__


class RemoteFile(io.RawIOBase):
    """A file in a key-value store, read by byte ranges, for libraries that want a seekable file."""

    def __init__(self, url: str):
        super().__init__()
        parent, self._key = split_last(url)
        self._folder, self._at = open_folder(parent), 0
        self._size = self._find_size()
        self._ahead_at, self._ahead = 0, b""
        self._lock = threading.Lock()

    def _find_size(self) -> int:
        """Asks for what lies beyond any file: the answer names the size. Doubling would need tens of requests."""
        try:
            self._folder.read(self._key, byte_range=slice(1 << 60, (1 << 60) + 1)).result()
        except ValueError as error:
            if found := re.search(r"value of size (\d+)", str(error)):
                return int(found[1])
        low, high = 0, 1 << 20
        while self._has(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._has(middle) else (low, middle)
        return high

    def _has(self, position: int) -> bool:
        try:
            return len(self._folder.read(self._key, byte_range=slice(position, position + 1)).result().value) == 1
        except ValueError:
            return False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.pread(self._at, min(len(view), max(0, self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def pread(self, offset: int, count: int) -> bytes:
        """Bytes from `offset`; headers are read in many small pieces, so a small request fetches more."""
        if count <= 0:
            return b""
        with self._lock:
            start = offset - self._ahead_at
            if not 0 <= start <= len(self._ahead) - count:
                stop = min(self._size, offset + max(count, _READ_AHEAD))
                self._ahead = self._folder.read(self._key, byte_range=slice(offset, stop)).result().value
                self._ahead_at, start = offset, 0
            return self._ahead[start : start + count]
