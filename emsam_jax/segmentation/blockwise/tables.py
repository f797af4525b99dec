"""Tables of fragments, edges and objects: structured arrays in .npy files, on any storage that TensorStore writes."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Shaped, UInt64

from emsam_jax.blocks import Block, Plan
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.location import open_folder, read_key, write_key

# Pieces, fragments and objects alike: voxels, and the box that holds them, z, y, x, in voxels of the volume.
OBJECT = np.dtype([("id", "<u8"), ("size", "<i8"), ("start", "<i8", 3), ("stop", "<i8", 3)])
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


def read_table(url: str, key: str) -> Table:
    content = read_key(open_folder(url), key)
    try:
        return np.load(io.BytesIO(content or b""), allow_pickle=False)
    except (ValueError, EOFError):
        raise VolumeError(
            f"{url}/{key}: expected a table in numpy's format, found {'none' if content is None else 'a torn one'}; "
            "the same command again makes it anew."
        ) from None


def read_tables(url: str, key: Callable[[Block], str], plan: Plan) -> Iterator[Table]:
    """One of each block, in the plan's order."""
    blocks = iter(plan)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(itertools.islice(blocks, _AHEAD)):
            yield from pool.map(lambda block: read_table(url, key(block)), some)


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
    """Labels of fragments in increasing order. Reads the pages that hold them and no others: the table may be large."""
    labels = np.zeros(fragments.shape, np.uint64)
    if not len(fragments):
        return labels
    key, pages_key = lookup_keys(name)
    pages, folder = read_table(url, pages_key), open_folder(url)
    place = np.searchsorted(pages["fragment"], fragments, side="right") - 1
    runs = np.flatnonzero(np.diff(place, prepend=-2) > 1)  # neighbouring pages are read in one go
    for first, last in zip(runs, [*(runs[1:] - 1), len(place) - 1], strict=True):
        span = pages["start"][place[first]], pages["stop"][place[last]]
        byte_range = slice(*(_HEADER + int(row) * LOOKUP.itemsize for row in span))
        rows = np.frombuffer(folder.read(key, byte_range=byte_range).result().value, LOOKUP)
        own = slice(first, last + 1)
        labels[own] = rows["label"][np.searchsorted(rows["fragment"], fragments[own])]
    return labels


def _save(table: Table) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


_HEADER = len(_save(np.zeros(0, LOOKUP)))  # bytes; numpy leaves room in it for any number of rows


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
