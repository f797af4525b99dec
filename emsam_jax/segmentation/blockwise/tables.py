"""Reads, writes and merges tables of fragments, edges and objects: structured arrays in .npy files."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorstore as ts
from bioimage_cpp.utils import UnionFind
from jaxtyping import Bool, Int64, Shaped, UInt64
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import DTypeLike

from emsam_jax.blocks import Block, Plan
from emsam_jax.errors import UserError
from emsam_jax.storage import open_folder, read_key, write_key

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
_MERGE_AT = 1 << 22  # rows collected before they are merged, which bounds the memory


def write_table(url: str, key: str, table: Table) -> str:
    """Writes a table, durably, and returns its checksum."""
    return write_file(url, key, _save(table))


def write_file(url: str, key: str, content: bytes) -> str:
    write_key(open_folder(url), key, content)
    return _checksum(content)


def read_table(url: str, key: str, dtype: DTypeLike) -> Table:
    """Reads a table that `write_table` wrote; refuses anything else."""
    content = read_key(open_folder(url), key)
    empty = _header(dtype, 0)
    rows, rest = divmod(len(content or b"") - len(empty), np.dtype(dtype).itemsize)
    if content is None or rows < 0 or rest or not content.startswith(_header(dtype, rows)):
        raise UserError(
            f"{url}/{key}: expected a table in numpy's format, found {'none' if content is None else 'a torn one'}; "
            "the same command again makes it anew."
        )
    return np.frombuffer(content, dtype, offset=len(empty)).copy()


def read_tables(url: str, key: Callable[[Block], str], plan: Plan, dtype: DTypeLike) -> Iterator[Table]:
    """Yields the table of each block, in the plan's order."""
    blocks = iter(plan)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(itertools.islice(blocks, _AHEAD)):
            yield from pool.map(lambda block: read_table(url, key(block), dtype), some)


def are_intact(url: str, keys: Sequence[str], checksums: str) -> bool:
    """Returns whether the files have these checksums, which are joined by commas."""
    expected = checksums.split(",")
    return len(expected) == len(keys) and all(_is_intact(url, *one) for one in zip(keys, expected, strict=True))


def _is_intact(url: str, key: str, expected: str) -> bool:
    content = read_key(open_folder(url), key)
    return content is not None and _checksum(content) == expected


def write_lookup(url: str, lookup: Table, name: str = "lookup") -> str:
    """Writes the lookup in the order of fragments, with a table of pages that tells `look_up` where to read."""
    start = np.arange(0, len(lookup), _PAGE_ROWS)
    pages = np.zeros(len(start), _PAGE)
    pages["fragment"], pages["start"] = lookup["fragment"][start], start
    pages["stop"] = np.minimum(start + _PAGE_ROWS, len(lookup))
    return ",".join(write_table(url, key, table) for key, table in zip(lookup_keys(name), (lookup, pages), strict=True))


def lookup_keys(name: str = "lookup") -> tuple[str, str]:
    return f"{name}.npy", f"{name}_pages.npy"


def look_up(url: str, fragments: UInt64[np.ndarray, " n"], name: str = "lookup") -> UInt64[np.ndarray, " n"]:
    """Returns labels of fragments in increasing order; reads the pages that hold them alone, since the table may be
    large.

    Raises where a fragment is missing.
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
        raise UserError(
            f"{folder.url.rstrip('/')}/{key}: expected rows {first} to {stop}, found fewer; the same command again "
            "makes it anew."
        ) from None


def find_rows(ids: UInt64[np.ndarray, " n"], wanted: UInt64[np.ndarray, " m"], where: str) -> Int64[np.ndarray, " m"]:
    """Returns the index of each among the increasing ids; raises where one is missing."""
    rows = np.searchsorted(ids, wanted)
    there = ids.take(rows, mode="clip") == wanted if len(ids) else np.zeros(len(wanted), bool)
    if not there.all():
        raise unknown(wanted[~there], where)
    return rows


def unknown(ids: UInt64[np.ndarray, " n"], where: str) -> UserError:
    return UserError(
        f"{where}: expected every fragment of the blocks, found that {ids[0]} is missing: they are not of one run; "
        "choose another output."
    )


def _save(table: Table) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def _header(dtype: DTypeLike, rows: int) -> bytes:
    """Returns numpy's header, whose length is the same for any number of rows."""
    buffer = io.BytesIO()
    facts = {"descr": dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (rows,)}
    write_array_header_1_0(buffer, facts)
    return buffer.getvalue()


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def merge_edges(parts: Iterable[Table]) -> Table:
    """Merges rows of the same pair, in increasing order of (u, v): sizes are added, means weighted by them."""

    def merge(table: Table) -> Table:
        order = np.lexsort((table["v"], table["u"]))  # stable: equal pairs stay in the order of the parts
        table = table[order]
        starts = _starts((table["u"][1:] != table["u"][:-1]) | (table["v"][1:] != table["v"][:-1]))
        merged = table[starts]
        if len(merged) < len(table):
            merged["size"] = np.add.reduceat(table["size"], starts)
            merged["mean"] = np.add.reduceat(table["mean"] * table["size"], starts) / merged["size"]
        return merged

    return _merge(parts, EDGE, merge)


def rename_edges(edges: Table, lookup: Table) -> Table:
    """Replaces fragments by what they belong to; edges within one are dropped."""
    ends = [lookup["label"][find_rows(lookup["fragment"], edges[end], "Edges")] for end in "uv"]
    renamed = edges.copy()
    renamed["u"], renamed["v"] = np.minimum(*ends), np.maximum(*ends)
    return renamed[renamed["u"] != renamed["v"]]


def merge_objects(parts: Iterable[Table]) -> Table:
    """Merges rows of the same id, in increasing order: voxels are added, boxes united."""

    def merge(table: Table) -> Table:
        table = table[np.argsort(table["id"], kind="stable")]
        starts = _starts(table["id"][1:] != table["id"][:-1])
        merged = table[starts]
        if len(merged) < len(table):
            merged["voxels"] = np.add.reduceat(table["voxels"], starts)
            merged["start"] = np.minimum.reduceat(table["start"], starts, axis=0)
            merged["stop"] = np.maximum.reduceat(table["stop"], starts, axis=0)
        return merged

    return _merge(parts, OBJECT, merge)


def unite(ids: UInt64[np.ndarray, " n"], links: Table) -> UInt64[np.ndarray, " n"]:
    """Returns, for each of the increasing ids, the first of all those that links join it with."""
    union = UnionFind(len(ids))
    union.merge(np.stack([find_rows(ids, links[end], "Links") for end in "uv"], axis=1).astype(np.uint64))
    _, first, part = np.unique(union.element_labeling(), return_index=True, return_inverse=True)
    return ids[first[part]]


def _merge(parts: Iterable[Table], dtype: np.dtype, merge: Callable[[Table], Table]) -> Table:
    """Sums in the order of the parts, so that sums are the same to the bit whoever made them, and when."""
    merged, waiting, rows = np.zeros(0, dtype), [], 0
    for part in parts:
        if not len(part):
            continue
        waiting.append(part)
        rows += len(part)
        if rows > max(_MERGE_AT, len(merged)):
            merged, waiting, rows = merge(np.concatenate([merged, *waiting])), [], 0
    return merge(np.concatenate([merged, *waiting])) if waiting else merged


def _starts(changes: Bool[np.ndarray, " n"]) -> np.ndarray:
    """Returns where each run begins; `changes` tells that from the second row on."""
    return np.flatnonzero(np.concatenate([[True], changes]))
