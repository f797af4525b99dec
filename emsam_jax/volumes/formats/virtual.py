"""Opens arrays that TensorStore has no driver for, as chunks that a Python function reads."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import DTypeLike

from emsam_jax.errors import UserError
from emsam_jax.storage import shared_context

Region = tuple[slice, ...]
CHUNK_BYTES = 1 << 31  # the most that is decoded at once
_USUAL_BYTES = 1 << 20


def virtual(
    read: Callable[[Region], np.ndarray], shape: Sequence[int], dtype: DTypeLike, chunk: Sequence[int]
) -> ts.TensorStore:
    """Opens an array; `read` is called from several threads at once, for regions within a chunk, which is cached."""
    native = np.dtype(dtype).newbyteorder("=")
    try:
        ts_dtype = ts.dtype(native)
    except TypeError:
        raise UserError(f"Expected an array of numbers, found the type {dtype}.") from None

    def fill(domain: ts.IndexDomain, array: np.ndarray, _: Any) -> None:
        region = tuple(
            slice(start, stop) for start, stop in zip(domain.inclusive_min, domain.exclusive_max, strict=True)
        )
        array[...] = read(region)

    return ts.virtual_chunked(
        read_function=fill,
        dtype=ts_dtype,
        shape=list(shape),
        chunk_layout=ts.ChunkLayout(read_chunk_shape=[max(1, min(c, s)) for c, s in zip(chunk, shape, strict=True)]),
        context=shared_context(),
    )


def default_chunk(shape: Sequence[int], itemsize: int, limit: int = _USUAL_BYTES) -> tuple[int, ...]:
    """Returns chunks of whole rows of the last axes, as many as fit into the limit."""
    chunk, room = [], max(1, limit // itemsize)
    for size in reversed(shape):
        chunk.append(max(1, min(size, room)))
        room //= chunk[-1]
    return tuple(reversed(chunk))
