"""Finds which chunks of a volume exist on disk. A missing one reads as 0, as does one of zeros."""

import dataclasses
import functools
import itertools
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage import shared_context

_LOCAL, _REMOTE = 4096, 256  # chunks that are looked for, spread over the volume
_PATIENCE = 120.0  # seconds
Ranges = Sequence[range]  # of indices of chunks, along each axis of the file


class Missing(NamedTuple):
    missing: int
    looked_for: int  # all, or a sample
    chunks: int
    example: str  # where one that is missing should lie


@dataclasses.dataclass(frozen=True)
class ChunkFiles:
    """The chunks (shards, where several share a file) in the axes of the file; any of a chunk's keys holds it."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    folder: ts.KvStore
    keys: Callable[[Sequence[int]], list[str | bytes]]

    @classmethod
    def of(cls, store: ts.TensorStore, suffixes: tuple[str, ...] = ("",)) -> "ChunkFiles | None":
        """Returns None for a store that is not one whole array in a folder of chunks."""
        spec: dict[str, Any] = store.spec().to_json() if store.spec().kvstore is not None else {}
        transform, metadata = spec.get("transform", {}), spec.get("metadata", {})
        if "output" in transform or spec.get("kvstore", {}).get("driver") == "memory":
            return None
        match spec.get("driver"):
            case "zarr3":
                chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
                encoding = metadata.get("chunk_key_encoding", {"name": "default"})
                default = encoding["name"] == "default"
                join = encoding.get("configuration", {}).get("separator", "/" if default else ".").join
                start = ["c"] if default else []
                keys = _named(lambda index: join([*start, *map(str, index)]) or "0")
            case "zarr":
                chunk, join = metadata["chunks"], metadata.get("dimension_separator", ".").join
                keys = _named(lambda index: join(map(str, index)) or "0")
            case "n5":
                chunk, keys = metadata["blockSize"], _named(lambda index: "/".join(map(str, index)))
            case "neuroglancer_precomputed":
                return cls._of_scale(store, spec, suffixes)
            case _:
                return None
        return cls(tuple(store.shape), tuple(chunk), _folder(spec["kvstore"]), keys)

    @classmethod
    def _of_scale(cls, store: ts.TensorStore, spec: dict[str, Any], suffixes: tuple[str, ...]) -> "ChunkFiles":
        scale = spec["scale_metadata"]
        base = dict(spec["kvstore"])
        base["path"] = f"{base.get('path', '')}{scale['key']}/"
        chunk = (*scale["chunk_size"], store.shape[3])
        if not (sharding := scale.get("sharding")):
            return cls(
                tuple(store.shape),
                chunk,
                _folder(base),
                lambda index: [chunk_name(scale, index) + suffix for suffix in suffixes],
            )
        counts = [-(-size // side) for size, side in zip(scale["size"], scale["chunk_size"], strict=True)]
        folder = _folder({"driver": "neuroglancer_uint64_sharded", "metadata": sharding, "base": base})
        return cls(tuple(store.shape), chunk, folder, lambda index: [struct.pack(">Q", _morton(index[:3], counts))])

    def find_missing(self, ranges: Ranges | None = None) -> Missing:
        """Finds missing chunks among these ranges, or among all; a sample where there are many."""
        counts = [-(-size // side) for size, side in zip(self.shape, self.chunk, strict=True)]
        ranges = ranges or [range(count) for count in counts]
        most, total = _LOCAL if self._local else _REMOTE, math.prod(map(len, ranges))
        if total <= most:
            wanted = list(itertools.product(*ranges))
        else:
            rng = np.random.default_rng(0)
            drawn = [rng.integers(part.start, part.stop, most).tolist() for part in ranges]
            wanted = sorted(set(zip(*drawn, strict=True)))
        there = [self._is_file(index) for index in wanted] if self._local else self._are_stored(wanted)
        lost = [index for index, found in zip(wanted, there, strict=True) if not found]
        example = self.keys(lost[0])[0] if lost else ""
        shown = self.place + (example if isinstance(example, str) else f" (chunk {lost[0]} of its shards)")
        return Missing(len(lost), len(wanted), total, shown)

    def any_stored(self, ranges: Ranges) -> bool:
        """Returns whether any chunk among these ranges exists."""
        wanted = itertools.product(*ranges)
        return any(map(self._is_file, wanted)) if self._local else any(self._are_stored(list(wanted)))

    @functools.cached_property
    def _local(self) -> bool:
        return self.folder.spec().to_json()["driver"] == "file"

    @property
    def place(self) -> str:
        spec = self.folder.spec().to_json()
        spec = spec.get("base", spec)
        return f"{spec.get('base_url') or spec.get('bucket', '')}{spec.get('path', '')}"

    def _is_file(self, index: Sequence[int]) -> bool:
        paths = [Path(f"{self.folder.path}{key}") for key in self.keys(index)]
        if folders := [path for path in paths if path.is_dir()]:
            raise UserError(f"{folders[0]}: expected a file of the volume's voxels, found a folder.")
        return any(path.is_file() for path in paths)

    def _are_stored(self, wanted: list[tuple[int, ...]]) -> list[bool]:
        try:
            reads = [[self.folder.read(key, byte_range=slice(0, 1)) for key in self.keys(index)] for index in wanted]
            return [any(read.result(_PATIENCE).state == "value" for read in of_one) for of_one in reads]
        except (ValueError, TimeoutError) as error:
            raise UserError(f"{self.place} cannot be read: {first_line(error)}") from None


def chunk_name(scale: dict[str, Any], index: Sequence[int]) -> str:
    """Returns the name of chunk x, y, z of a scale without shards, which is the chunk's box."""
    parts = []
    for i, side, size, corner in zip(
        index, scale["chunk_size"], scale["size"], scale.get("voxel_offset", (0, 0, 0)), strict=False
    ):
        parts.append(f"{corner + i * side}-{corner + min(size, (i + 1) * side)}")
    return "_".join(parts)


def _named(name: Callable[[Sequence[int]], str]) -> Callable[[Sequence[int]], list[str | bytes]]:
    return lambda index: [name(index)]


def _folder(spec: dict[str, Any]) -> ts.KvStore:
    return ts.KvStore.open(spec, context=shared_context()).result()


def _morton(index: Sequence[int], counts: Sequence[int]) -> int:
    """Interleaves the bits of all indices, x first; an axis takes part with as many as its chunks need."""
    bits = [(count - 1).bit_length() for count in counts]
    code = at = 0
    for bit in range(max(bits)):
        for i, own in zip(index, bits, strict=True):
            if bit < own:
                code |= (i >> bit & 1) << at
                at += 1
    return code
