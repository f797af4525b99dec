"""Metadata and first bytes of files that others wrote, read within bounds of size and time, wherever they lie."""

import functools
import os
import stat
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import tensorstore as ts
import urllib3

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage.location import read_key

LIMIT = 64 << 20  # bytes of a metadata file
PATIENCE = 30.0  # seconds without an answer
_IN_ALL = 120.0  # seconds for one file
_PIECE = 1 << 16
_GONE = (404, 410)
_RETRIES = urllib3.Retry(
    3, read=0, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)


def read_bounded(folder: ts.KvStore, key: str, first_bytes: int | None = None) -> bytes | None:
    """The content, or its first bytes; None where there is no such file."""
    scheme = folder.url.partition(":")[0]
    if scheme == "file":
        return _read_local(folder.path + key, first_bytes)
    if scheme in ("http", "https"):
        return _read_http(folder, key, first_bytes)
    return read_key(folder, key, first_bytes, timeout=_IN_ALL)


def _read_local(path: str, first_bytes: int | None) -> bytes | None:
    """Without opening what would wait for a writer, or never end."""
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: expected a file or folder, found a pipe, socket or device.")
        if first_bytes is None and found.st_size > LIMIT:
            raise _too_large(path)
        with Path(path).open("rb") as file:
            return file.read(LIMIT if first_bytes is None else first_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None


def _read_http(folder: ts.KvStore, key: str, first_bytes: int | None) -> bytes | None:
    """TensorStore sets no bound to what a server sends."""
    spec = folder.spec().to_json()
    base = urlsplit(spec["base_url"])
    url = base._replace(path=base.path.rstrip("/") + spec.get("path", "/") + key).geturl()
    span = {} if first_bytes is None else {"Range": f"bytes=0-{first_bytes - 1}"}
    headers = {"Accept-Encoding": "identity"} | span
    try:
        answer = _connections(base.scheme, base.hostname or "").request(
            "GET", url, headers=headers, preload_content=False, timeout=PATIENCE, retries=_RETRIES
        )
        try:
            return _content(answer, url, first_bytes)
        finally:
            answer.close() if answer.length_remaining else answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
        if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
            raise UserError(f"{url} cannot be read: no answer in {PATIENCE:g} seconds.") from None
        raise UserError(f"{url} cannot be read: {first_line(reason)}") from None


def _content(answer: urllib3.BaseHTTPResponse, url: str, first_bytes: int | None) -> bytes | None:
    if answer.status in _GONE:
        return None
    if answer.status == 416:  # of the range that was asked for there is nothing
        return b""
    if answer.status not in (200, 206):
        raise UserError(f"{url} cannot be read: the server answers {answer.status} {answer.reason or ''}.")
    bound = LIMIT if first_bytes is None else first_bytes
    pieces, size, end = [], 0, time.monotonic() + _IN_ALL
    for piece in answer.stream(_PIECE, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > bound and first_bytes is not None:
            raise UserError(f"{url} cannot be read: the request of a byte range was ignored by server.")
        if size > bound:
            raise _too_large(url)
        if time.monotonic() > end:
            raise UserError(f"{url} cannot be read: the server took more than {_IN_ALL:g} seconds.")
    return b"".join(pieces)


def _connections(scheme: str, host: str) -> urllib3.PoolManager:
    return _pool("" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, ""))


@functools.cache
def _pool(proxy: str) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()


def _too_large(place: str) -> UserError:
    return UserError(f"{place}: expected metadata of at most {LIMIT >> 20} MiB, found more.")
