"""Reads what a web server sends within bounds of size and time: TensorStore sets none.

Neither does fsspec: where a server sends more than the range that was asked for, it takes all of it.
"""

import functools
import re
import time
import urllib.request
from typing import NamedTuple
from urllib.parse import urlsplit

import tensorstore as ts
import urllib3

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage import bounded

_PIECE = 1 << 16
_SLOWEST = 1 << 16  # bytes a second of a range, on top of the time for any file
_TRIES, _PAUSE = 4, 0.5  # of a range whose connection breaks, and seconds between them
_GONE = (404, 410)
_RETRIES = urllib3.Retry(
    3, read=0, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)


class Answer(NamedTuple):
    content: bytes
    size: int | None  # of the whole file, where the server tells it


def read_http(folder: ts.KvStore, key: str, span: tuple[int, int] | None = None) -> Answer | None:
    """Reads from start to stop, or all; None where there is no such file."""
    spec = folder.spec().to_json()
    base = urlsplit(spec["base_url"])
    url = base._replace(path=base.path.rstrip("/") + spec.get("path", "/") + key).geturl()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {})
    try:
        answer = _connections(base.scheme, base.hostname or "").request(
            "GET", url, headers=headers, preload_content=False, timeout=bounded.PATIENCE, retries=_RETRIES
        )
        try:
            return _take(answer, url, span)
        finally:
            answer.release_conn() if answer.length_remaining == 0 else answer.close()
    except urllib3.exceptions.HTTPError as error:
        reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
        if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
            raise UserError(f"{url} cannot be read: no answer in {bounded.PATIENCE:g} seconds.") from None
        raise UserError(f"{url} cannot be read: {first_line(reason)}") from reason


def _take(answer: urllib3.BaseHTTPResponse, url: str, span: tuple[int, int] | None) -> Answer | None:
    if answer.status in _GONE:
        return None
    told = re.fullmatch(r"bytes \S+/(\d+)", answer.headers.get("Content-Range", ""))
    if answer.status == 416:  # of the range that was asked for there is nothing
        return Answer(b"", int(told[1]) if told else None)
    if answer.status not in (200, 206):
        raise UserError(f"{url} cannot be read: the server answers {answer.status} {answer.reason or ''}.")
    ignored = UserError(f"{url} cannot be read: the request of a byte range was ignored by server.")
    if answer.status == 200 and span and span[0] > 0:
        raise ignored
    bound = bounded.LIMIT if span is None else span[1] - span[0]
    seconds = bounded.IN_ALL if span is None else bounded.IN_ALL + bound / _SLOWEST
    content, end = bytearray(), time.monotonic() + seconds
    while piece := answer.read1(_PIECE):
        content += piece
        if len(content) > bound:
            raise bounded.too_large(url) if span is None else ignored
        if time.monotonic() > end:
            raise UserError(f"{url} cannot be read: the server took more than {seconds:g} seconds.")
    return Answer(bytes(content), len(content) if answer.status == 200 else int(told[1]) if told else None)


def read_range(folder: ts.KvStore, key: str, start: int, stop: int, tries: int = _TRIES) -> Answer:
    """Reads a byte range; anew where the connection breaks."""
    try:
        return read_http(folder, key, (start, stop)) or Answer(b"", 0)
    except UserError as error:
        if tries == 1 or not isinstance(error.__cause__, urllib3.exceptions.ProtocolError):
            raise
    time.sleep(_PAUSE)
    return read_range(folder, key, start, stop, tries - 1)


def _connections(scheme: str, host: str) -> urllib3.PoolManager:
    return _pool("" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, ""))


@functools.cache
def _pool(proxy: str) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy, maxsize=8) if proxy else urllib3.PoolManager(maxsize=8)
