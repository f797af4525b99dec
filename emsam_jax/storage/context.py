"""Shares one TensorStore context among all volumes: a chunk cache with a byte limit, and finite retries."""

import functools
import os

import tensorstore as ts

from emsam_jax.errors import UserError

_RETRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "5s"}

# Each write to a file of its own, renamed when it is whole. With locks, TensorStore writes into the lock file that a
# killed writer left, without cutting it off: what is shorter ends in the other's bytes.
_LOCKING = {"file_io_locking": {"mode": "none"}}

# A server that falls silent in the middle of a chunk is given up, where nobody has set another time.
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "60")
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
_KINDS = ("http_request_retries", "gcs_request_retries", "s3_request_retries")


class _Shared:
    cache_bytes = 1 << 30
    context: ts.Context | None = None


def shared_context() -> ts.Context:
    if _Shared.context is None:
        limits = {"cache_pool": {"total_bytes_limit": _Shared.cache_bytes}}
        _Shared.context = ts.Context(limits | _LOCKING | dict.fromkeys(_KINDS, _RETRIES))
    return _Shared.context


@functools.cache
def locking_context() -> ts.Context:
    """Returns a context for conditional writes, of which two processes at once must not both succeed."""
    return ts.Context(dict.fromkeys(_KINDS, _RETRIES))


@functools.cache
def file_context() -> ts.Context:
    """Returns a context with threads of its own, for files that Python reads inside TensorStore's: or they deadlock."""
    limit = {"limit": 8}
    concurrency = {"data_copy_concurrency": limit, "http_request_concurrency": limit}
    return ts.Context(concurrency | dict.fromkeys(_KINDS, _RETRIES))


def set_cache_limit(cache_bytes: int) -> None:
    """Sets the limit for volumes opened from now on; those already open keep the cache that they have."""
    if cache_bytes < 0:
        raise UserError(f"Expected a cache of 0 bytes or more, found {cache_bytes}.")
    _Shared.cache_bytes, _Shared.context = cache_bytes, None
