"""Opens neuroglancer's precomputed volumes, also with chunks compressed into files, as cloud-volume writes them."""

import bz2
import importlib
import io
import itertools
import lzma
import math
import os
import threading
import zlib
from typing import Any

import numpy as np
import tensorstore as ts

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import Field, file_context, is_remote, open_folder, read_key
from emsam_jax.volumes.axes import NOTHING, Native, by_axis, to_zyx
from emsam_jax.volumes.chunk_files import ChunkFiles, chunk_name
from emsam_jax.volumes.formats.virtual import Region, virtual

_DECOMPRESSORS = {
    ".gz": lambda: zlib.decompressobj(31),
    ".xz": lzma.LZMADecompressor,
    ".bz2": bz2.BZ2Decompressor,
}
_SUFFIXES = (".gz", ".br", ".zstd", ".xz", ".bz2")
_LOOKED_AT = 100  # files of a folder, or
_PROBED = 4  # chunks on a web server


def describe_scale(store: ts.TensorStore, url: str, info: Field, level: int) -> Native:
    scales = list(info["scales"])
    sizes = [by_axis(scale["resolution"].numbers(3), "xyz") for scale in scales]
    corner = scales[level]["voxel_offset"]
    corner = by_axis(corner.numbers(3) if corner else [0, 0, 0], "xyz")
    offset = {axis: corner[axis] * sizes[level][axis] for axis in "zyx"}
    levels = tuple(to_zyx(size, 1.0) for size in sizes)
    of_array = NOTHING if level else info  # offsets are in voxels of the finest level
    if scales[level]["sharding"] or not (suffix := _suffix(url, store)):
        return Native(store, "xyzc", sizes[level], offset, levels, attributes=of_array)
    files = ChunkFiles.of(store, ("", *_SUFFIXES))
    store = _Compressed(url, store, suffix).store
    return Native(store, "xyzc", sizes[level], offset, levels, files=files, attributes=of_array)


def _suffix(url: str, store: ts.TensorStore) -> str:
    """Returns what the chunks' file names end in, beyond what TensorStore looks for."""
    scale = store.spec().to_json()["scale_metadata"]
    if not is_remote(url):
        try:
            with os.scandir(f"{url}/{scale['key']}") as files:
                names = [file.name for file in itertools.islice(files, _LOOKED_AT)]
        except OSError:
            return ""
    else:
        folder, names = open_folder(f"{url}/{scale['key']}"), []
        counts = [-(-size // chunk) for size, chunk in zip(scale["size"], scale["chunk_size"], strict=True)]
        for part in range(_PROBED):
            name = chunk_name(scale, [count * part // _PROBED for count in counts])
            tried = (name + suffix for suffix in ("", *_SUFFIXES))
            names += itertools.islice((t for t in tried if read_key(folder, t, first_bytes=1) is not None), 1)
    found = [suffix for suffix in _SUFFIXES if any(name.endswith(suffix) for name in names)]
    return found[0] if found else ""


class _Compressed:
    """Decompresses each chunk into memory, where TensorStore finds and decodes it."""

    def __init__(self, url: str, store: ts.TensorStore, suffix: str):
        self._spec = store.spec().to_json()
        self._scale: dict[str, Any] = self._spec["scale_metadata"]
        self._suffixes = (suffix, *(other for other in ("", *_SUFFIXES) if other != suffix))
        self._folder = open_folder(f"{url}/{self._scale['key']}", file_context())
        self._chunk = [*self._scale["chunk_size"], store.shape[3]]
        dtype = store.dtype.numpy_dtype
        self._limit = 4 * math.prod(self._chunk) * dtype.itemsize + (1 << 20)  # bytes, however they are encoded
        self._decoder = threading.local()
        self.store = virtual(self._read, store.shape, dtype, self._chunk)

    def _read(self, region: Region) -> np.ndarray:
        index = [s.start // side for s, side in zip(region[:3], self._chunk, strict=False)]
        name = chunk_name(self._scale, index)
        for suffix in self._suffixes:
            if (data := read_key(self._folder, name + suffix)) is not None:
                data = decompress(data, suffix, self._limit, f"{self._folder.url}{name}{suffix}")
                return self._decoded(name, data, region)
        return np.zeros([s.stop - s.start for s in region])

    def _decoded(self, name: str, data: bytes, region: Region) -> np.ndarray:
        """By a store of this thread's own, which holds this chunk alone."""
        own = self._decoder
        if not hasattr(own, "store"):
            context = ts.Context({"cache_pool": {"total_bytes_limit": 0}, "data_copy_concurrency": {"limit": 1}})
            names = ("driver", "dtype", "multiscale_metadata", "scale_metadata")
            spec = {name: self._spec[name] for name in names} | {"kvstore": {"driver": "memory"}}
            own.store = ts.open(spec, context=context, create=True).result()
            folder = {"driver": "memory", "path": f"{self._scale['key']}/"}
            own.files = ts.KvStore.open(folder, context=context).result()
        own.files.write(name, data).result()
        try:
            origin = own.store.domain.inclusive_min
            part = tuple(slice(s.start + o, s.stop + o) for s, o in zip(region, origin, strict=True))
            return np.asarray(own.store[part].read().result())
        finally:
            own.files.write(name, None).result()


def decompress(data: bytes, suffix: str, limit: int, path: str) -> bytes:
    """Decompresses up to the limit: a few bytes can stand for any number."""
    with parsing(path, f"a {suffix} file"):
        if suffix == "":
            return data
        if suffix in _DECOMPRESSORS:
            decompressor = _DECOMPRESSORS[suffix]()
            content, whole = decompressor.decompress(data, limit), decompressor.eof
        elif suffix == ".zstd":
            with _imported("zstandard", path).ZstdDecompressor().stream_reader(io.BytesIO(data)) as stream:
                content, whole = stream.read(limit), not stream.read(1)
        else:
            decompressor = _imported("brotli", path).Decompressor()
            content = decompressor.process(data, output_buffer_limit=limit)
            whole = decompressor.is_finished()
        if not whole:
            raise UserError(f"{path}: expected a whole chunk of at most {limit} bytes; it is cut off, or larger.")
        return content


def _imported(codec: str, path: str) -> Any:
    try:
        return importlib.import_module(codec)
    except ModuleNotFoundError:
        raise UserError(f"{path} is compressed with {codec}, which is not installed: pip install {codec}.") from None
