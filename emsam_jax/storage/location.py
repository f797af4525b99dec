"""Locates volumes: a local path or a URL, as a TensorStore key-value store, and as a seekable file."""

import io
import re
import threading
from pathlib import Path
from typing import Any

import tensorstore as ts

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage.context import file_context, shared_context

_SCHEMES = ("file", "gs", "s3", "http", "https", "memory")
_READ_AHEAD = 1 << 16  # bytes


def is_remote(url: str) -> bool:
    return re.match(r"[a-z0-9]+://", url) is not None


def normalise(url: str) -> str:
    """Removes trailing slashes, and makes local paths absolute."""
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise UserError(f"{url!a}: expected a path in UTF-8; rename the file.") from None
    if "\0" in url:
        raise UserError(f"{url!a}: expected a path or URL, found one with a zero byte.")
    if not is_remote(url):
        path = Path(url).expanduser().absolute()
        return str(path.resolve() if ".." in path.parts else path)  # TensorStore takes no `..`
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise UserError(f"{url}: expected a path or a URL that starts with {', '.join(_SCHEMES)}; found {scheme}://.")
    return url.rstrip("/")


def folder_spec(url: str) -> dict[str, Any]:
    """Returns TensorStore's JSON of the key-value store whose keys are the files under `url`."""
    if not is_remote(url):
        return {"driver": "file", "path": url.rstrip("/") + "/"}
    return ts.KvStore.Spec(url + "/").to_json()


def open_folder(url: str, context: ts.Context | None = None) -> ts.KvStore:
    return ts.KvStore.open(folder_spec(url), context=context or shared_context()).result()


def split_last(url: str) -> tuple[str, str]:
    """Splits parent and last name. The parent is empty when there is none: of / and of a host or bucket."""
    parent, _, name = url.rpartition("/")
    return ("", name) if parent.endswith(":/") or not parent else (parent, name)


def read_key(
    folder: ts.KvStore, key: str, first_bytes: int | None = None, timeout: float | None = None
) -> bytes | None:
    """Reads the content, or its first bytes; None where there is no such file. The timeout is in seconds."""
    try:
        span = None if first_bytes is None else slice(0, first_bytes)
        found = folder.read(key, byte_range=span).result(timeout)
    except TimeoutError:
        raise UserError(f"{folder.url.rstrip('/')}/{key} cannot be read: no answer in {timeout:g} seconds.") from None
    except ValueError as error:
        if "OUT_OF_RANGE" in str(error):  # shorter than what was asked for
            return read_key(folder, key, timeout=timeout)
        if "NOT_FOUND" in str(error) or "Is a directory" in str(error) or "Not a directory" in str(error):
            return None
        raise UserError(f"{folder.url.rstrip('/')}/{key} cannot be read: {first_line(error)}") from None
    return found.value if found.state == "value" else None


def write_key(folder: ts.KvStore, key: str, content: bytes | None) -> None:
    """Replaces the file durably; a reader sees the old content or the new, never a part. None deletes."""
    try:
        folder.write(key, content).result()
    except ValueError as error:
        place, reason = f"{folder.url.rstrip('/')}/{key}", first_line(error)
        if place.startswith("file://"):  # the operating system's words come last
            place, reason = place.removeprefix("file://"), f"{reason.rpartition(': ')[2]}."
        raise UserError(f"{place} cannot be written: {reason}") from None


def write_whole(place: str | Path, content: str | bytes) -> None:
    """As `write_key`, to a path or URL."""
    folder, name = split_last(normalise(str(place)))
    write_key(open_folder(folder), name, content.encode() if isinstance(content, str) else content)


class RemoteFile(io.RawIOBase):
    """A file in a key-value store, read by byte ranges, for libraries that want a seekable file."""

    def __init__(self, url: str):
        super().__init__()
        parent, self._key = split_last(url)
        self._folder, self._at = open_folder(parent, file_context()), 0
        self._size = self._find_size()
        self._ahead_at, self._ahead = 0, b""
        self._lock = threading.Lock()

    def _find_size(self) -> int:
        """Finds the size by bisection: no store of TensorStore tells it without listing, which web servers lack."""
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
        """Reads bytes from `offset`; small requests prefetch more, since headers are read in many small pieces."""
        if count <= 0:
            return b""
        with self._lock:
            start = offset - self._ahead_at
            if not 0 <= start <= len(self._ahead) - count:
                stop = min(self._size, offset + max(count, _READ_AHEAD))
                try:
                    self._ahead = self._folder.read(self._key, byte_range=slice(offset, stop)).result().value
                except ValueError as error:
                    raise OSError(first_line(error)) from None
                self._ahead_at, start = offset, 0
            return self._ahead[start : start + count]
