"""A file over HTTP or in a bucket as a seekable one."""

import io
import threading
from typing import Any

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage.context import file_context
from emsam_jax.storage.location import open_folder, split_last

_PREFETCH = 1 << 16  # bytes


class RemoteFile(io.RawIOBase):
    """A file over HTTP or in a bucket, read by byte ranges, for libraries that want a seekable file."""

    def __init__(self, url: str):
        super().__init__()
        parent, self._key = split_last(url)
        self._folder, self._at = open_folder(parent, file_context()), 0
        self._is_http = url.startswith("http")
        self._ahead_at, self._ahead = 0, b""
        self._lock = threading.Lock()
        self._size = self._first_answer() if self._is_http else self._bisected()

    def _first_answer(self) -> int:
        """Prefetches what lies first; web servers tell the whole size with any range."""
        from emsam_jax.storage.web import read_range  # whose library takes as long to load as TensorStore

        found = read_range(self._folder, self._key, 0, _PREFETCH)
        if found.size is None:
            raise UserError(f"{self._folder.url}{self._key} cannot be read: the server does not tell its size.")
        self._ahead = found.content
        return found.size

    def _bisected(self) -> int:
        """Finds the size by halving: of files in buckets, TensorStore tells it neither when it reads nor lists."""
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
                stop = min(self._size, offset + max(count, _PREFETCH))
                try:
                    self._ahead = self._read(offset, stop)
                except ValueError as error:
                    raise OSError(first_line(error)) from None
                self._ahead_at, start = offset, 0
            return self._ahead[start : start + count]

    def _read(self, start: int, stop: int) -> bytes:
        if not self._is_http:
            return self._folder.read(self._key, byte_range=slice(start, stop)).result().value
        from emsam_jax.storage.web import read_range

        return read_range(self._folder, self._key, start, stop).content
