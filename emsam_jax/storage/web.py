"""What a web server sends, within bounds of size and time: TensorStore sets none."""

import functools
import time
import urllib.request
from urllib.parse import urlsplit

import tensorstore as ts
import urllib3

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage import bounded

_PIECE = 1 << 16
_GONE = (404, 410)
_RETRIES = urllib3.Retry(
    3, read=0, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)


def read_http(folder: ts.KvStore, key: str, first_bytes: int | None) -> bytes | None:
    """As `read_bounded`."""
    spec = folder.spec().to_json()
    base = urlsplit(spec["base_url"])
    url = base._replace(path=base.path.rstrip("/") + spec.get("path", "/") + key).geturl()
    span = {} if first_bytes is None else {"Range": f"bytes=0-{first_bytes - 1}"}
    headers = {"Accept-Encoding": "identity"} | span
    try:
        answer = _connections(base.scheme, base.hostname or "").request(
            "GET", url, headers=headers, preload_content=False, timeout=bounded.PATIENCE, retries=_RETRIES
        )
        try:
            return _content(answer, url, first_bytes)
        finally:
            answer.close() if answer.length_remaining else answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
        if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
            raise UserError(f"{url} cannot be read: no answer in {bounded.PATIENCE:g} seconds.") from None
        raise UserError(f"{url} cannot be read: {first_line(reason)}") from None


def _content(answer: urllib3.BaseHTTPResponse, url: str, first_bytes: int | None) -> bytes | None:
    if answer.status in _GONE:
        return None
    if answer.status == 416:  # of the range that was asked for there is nothing
        return b""
    if answer.status not in (200, 206):
        raise UserError(f"{url} cannot be read: the server answers {answer.status} {answer.reason or ''}.")
    bound = bounded.LIMIT if first_bytes is None else first_bytes
    pieces, size, end = [], 0, time.monotonic() + bounded.IN_ALL
    for piece in answer.stream(_PIECE, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > bound and first_bytes is not None:
            raise UserError(f"{url} cannot be read: the request of a byte range was ignored by server.")
        if size > bound:
            raise bounded.too_large(url)
        if time.monotonic() > end:
            raise UserError(f"{url} cannot be read: the server took more than {bounded.IN_ALL:g} seconds.")
    return b"".join(pieces)


def _connections(scheme: str, host: str) -> urllib3.PoolManager:
    return _pool("" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, ""))


@functools.cache
def _pool(proxy: str) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
