"""Opens arrays that lie in a file as they lie in memory: .npy, and what other formats keep in one piece."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts
from numpy.lib import format as npy

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import RemoteFile, is_remote
from emsam_jax.volumes.axes import Native, unnamed_axes
from emsam_jax.volumes.formats.virtual import Region, default_chunk, virtual

MAGIC = b"\x93NUMPY"
PositionalRead = Callable[[int, int], bytes]  # offset and count, from any thread


def open_npy(url: str) -> Native:
    with parsing(url, "an .npy file"), RemoteFile(url) if is_remote(url) else Path(url).open("rb") as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        start = file.tell()
    if dtype.kind not in "biuf":
        raise UserError(f"{url}: expected an array of real numbers, found the type {dtype}.")
    store = contiguous(positional_read(url), start, shape[::-1] if fortran else shape, dtype, url)
    if fortran:
        store = store.transpose(list(range(len(shape)))[::-1])
    return Native(store, unnamed_axes("npy", len(shape)))


def positional_read(url: str) -> PositionalRead:
    """Returns a function that reads bytes at an offset; fewer than asked for where the file ends."""
    if is_remote(url):
        return RemoteFile(url).pread

    def read(offset: int, count: int) -> bytes:
        with Path(url).open("rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size - offset
            return os.pread(file.fileno(), min(count, left), offset) if left > 0 else b""

    return read


def contiguous(read: PositionalRead, start: int, shape: Sequence[int], dtype: np.dtype, url: str) -> ts.TensorStore:
    """Opens an array in C order from byte `start`. Chunks are runs of the file, so a chunk is one read."""
    count = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (count and not read(start + count - 1, 1)):
        raise UserError(f"{url}: expected {count} bytes for the shape {tuple(shape)}, found a file that ends before.")
    chunk = default_chunk(shape, dtype.itemsize)
    strides = [dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]

    def read_region(region: Region) -> np.ndarray:
        first = sum(s.start * stride for s, stride in zip(region, strides, strict=True))
        last = sum((s.stop - 1) * stride for s, stride in zip(region, strides, strict=True))
        data = read(start + first, last - first + dtype.itemsize)
        if len(data) < last - first + dtype.itemsize:
            raise UserError(f"{url} ends before its last voxel: it was cut off.")
        counts = [s.stop - s.start for s in region]
        return np.ndarray(counts, dtype, data, strides=strides)

    return virtual(read_region, shape, dtype, chunk)
