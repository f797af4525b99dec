"""Tables of fragments, edges and objects: structured arrays in .npy files, on any storage that TensorStore writes."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorstore as ts
from jaxtyping import Int64, Shaped, UInt64
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import DTypeLike

from emsam_jax.blocks import Block, Plan
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.location import open_folder, read_key, write_key

# Pieces, fragments and objects alike; the box that holds them is z, y, x, in voxels of the volume.
OBJECT = np.dtype([("id", "<u8"), ("voxels", "<i8"), ("start", "<i8", 3), ("stop", "<i8", 3)])
# Fragments u < v that touch: mean affinity between them, and between how many pairs of voxels.
EDGE = np.dtype([("u", "<u8"), ("v", "<u8"), ("mean", "<f8"), ("size", "<i8")])
LINK = np.dtype([("u", "<u8"), ("v", "<u8")])  # two that are one
LOOKUP = np.dtype([("fragment", "<u8"), ("label", "<u8")])

Table = Shaped[np.ndarray, " _"]

_PAGE = np.dtype([("fragment", "<u8"), ("start", "<i8"), ("stop", "<i8")])  # its first one, and its rows
_PAGE_ROWS = 4096
_THREADS, _AHEAD = 8, 64  # files read at once, and files held


def write_table(url: str, key: str, table: Table) -> str:
    """Returns the checksum once the file is durable."""
    return write_file(url, key, _save(table))


def write_file(url: str, key: str, content: bytes) -> str:
    write_key(open_folder(url), key, content)
    return _checksum(content)


def read_table(url: str, key: str, dtype: DTypeLike) -> Table:
    """What `write_table` wrote, and nothing else."""
    content = read_key(open_folder(url), key)
    empty = _header(dtype, 0)
    rows, rest = divmod(len(content or b"") - len(empty), np.dtype(dtype).itemsize)
    if content is None or rows < 0 or rest or not content.startswith(_header(dtype, rows)):
        raise VolumeError(
            f"{url}/{key}: expected a table in numpy's format, found {'none' if content is None else 'a torn one'}; "
            "the same command again makes it anew."
        )
    return np.frombuffer(content, dtype, offset=len(empty)).copy()


def read_tables(url: str, key: Callable[[Block], str], plan: Plan, dtype: DTypeLike) -> Iterator[Table]:
    """One of each block, in the plan's order."""
    blocks = iter(plan)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(itertools.islice(blocks, _AHEAD)):
            yield from pool.map(lambda block: read_table(url, key(block), dtype), some)


def are_intact(url: str, keys: Sequence[str], checksums: str) -> bool:
    """Whether the files are as they were written, by their checksums with commas between."""
    expected = checksums.split(",")
    return len(expected) == len(keys) and all(_is_intact(url, *one) for one in zip(keys, expected, strict=True))


def _is_intact(url: str, key: str, expected: str) -> bool:
    content = read_key(open_folder(url), key)
    return content is not None and _checksum(content) == expected


def write_lookup(url: str, lookup: Table, name: str = "lookup") -> str:
    """In the order of fragments, with a table of pages that says where in it `look_up` has to read."""
    start = np.arange(0, len(lookup), _PAGE_ROWS)
    pages = np.zeros(len(start), _PAGE)
    pages["fragment"], pages["start"] = lookup["fragment"][start], start
    pages["stop"] = np.minimum(start + _PAGE_ROWS, len(lookup))
    return ",".join(write_table(url, key, table) for key, table in zip(lookup_keys(name), (lookup, pages), strict=True))


def lookup_keys(name: str = "lookup") -> tuple[str, str]:
    return f"{name}.npy", f"{name}_pages.npy"


def look_up(url: str, fragments: UInt64[np.ndarray, " n"], name: str = "lookup") -> UInt64[np.ndarray, " n"]:
    """Labels of fragments in increasing order. Reads the pages that hold them and no others: the table may be large.

    Raises where a fragment is not in it.
    """
    labels = np.zeros(fragments.shape, np.uint64)
    if not len(fragments):
        return labels
    key, pages_key = lookup_keys(name)
    pages, folder = read_table(url, pages_key, _PAGE), open_folder(url)
    place = np.searchsorted(pages["fragment"], fragments, side="right") - 1
    if place[0] < 0:
        raise unknown(fragments[:1], f"{url}/{key}")
    runs = np.flatnonzero(np.diff(place, prepend=-2) > 1)  # neighbouring pages are read in one go
    for first, last in zip(runs, [*(runs[1:] - 1), len(place) - 1], strict=True):
        span = pages["start"][place[first]], pages["stop"][place[last]]
        rows = _read_rows(folder, key, *map(int, span))
        own = slice(first, last + 1)
        labels[own] = rows["label"][find_rows(rows["fragment"], fragments[own], f"{url}/{key}")]
    return labels


def _read_rows(folder: ts.KvStore, key: str, first: int, stop: int) -> Table:
    begin = len(_header(LOOKUP, 0))
    try:
        byte_range = slice(begin + first * LOOKUP.itemsize, begin + stop * LOOKUP.itemsize)
        return np.frombuffer(folder.read(key, byte_range=byte_range).result().value, LOOKUP)
    except ValueError:
        raise VolumeError(
            f"{folder.url.rstrip('/')}/{key}: expected rows {first} to {stop}, found fewer; the same command again "
            "makes it anew."
        ) from None


def find_rows(ids: UInt64[np.ndarray, " n"], wanted: UInt64[np.ndarray, " m"], where: str) -> Int64[np.ndarray, " m"]:
    """The place of each among the ids, which increase; raises where one of them is not there."""
    rows = np.searchsorted(ids, wanted)
    there = ids.take(rows, mode="clip") == wanted if len(ids) else np.zeros(len(wanted), bool)
    if not there.all():
        raise unknown(wanted[~there], where)
    return rows


def unknown(ids: UInt64[np.ndarray, " n"], where: str) -> VolumeError:
    return VolumeError(
        f"{where}: expected every fragment of the blocks, found that {ids[0]} is missing: they are not of one run; "
        "choose another output."
    )


def _save(table: Table) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def _header(dtype: DTypeLike, rows: int) -> bytes:
    """Of as many bytes for any number of rows, since numpy leaves room for it."""
    buffer = io.BytesIO()
    facts = {"descr": dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (rows,)}
    write_array_header_1_0(buffer, facts)
    return buffer.getvalue()


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
