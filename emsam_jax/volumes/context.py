"""The TensorStore context that all volumes share: one chunk cache with a byte limit, patient but finite retries."""

import tensorstore as ts

_RETRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "5s"}
_KINDS = ("http_request_retries", "gcs_request_retries", "s3_request_retries")


class _Shared:
    cache_bytes = 1 << 30
    context: ts.Context | None = None


def shared_context() -> ts.Context:
    if _Shared.context is None:
        limits = {"cache_pool": {"total_bytes_limit": _Shared.cache_bytes}}
        _Shared.context = ts.Context(limits | dict.fromkeys(_KINDS, _RETRIES))
    return _Shared.context


def set_cache_limit(cache_bytes: int) -> None:
    """For volumes opened from now on: those already open keep the cache that they have."""
    _Shared.cache_bytes, _Shared.context = cache_bytes, None
