"""TIFF stacks through TensorStore: only the tiles or strips that are needed."""

import contextlib
import io
import itertools
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import RemoteFile, is_remote
from emsam_jax.volumes.axes import Native, nanometres, to_zyx
from emsam_jax.volumes.formats.chunked import check_level
from emsam_jax.volumes.formats.npy import PositionalRead, contiguous, positional_read
from emsam_jax.volumes.formats.virtual import CHUNK_BYTES, Region, default_chunk, virtual

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders


def open_tiff(url: str, level: int) -> Native:
    with opened(url) as file:
        if not file.series:
            raise UserError(f"{url}: expected a TIFF with pages, found none.")
        levels = file.series[0].levels
        check_level(level, len(levels), url)
        series = levels[level]
        axes, dtype = _letters(series.axes), series.dtype
        if axes is None or dtype is None:
            raise UserError(f"{url}: expected the axes z, y, x (c, t), found {series.axes} of shape {series.shape}.")
        size = voxel_size(file)
        if series.dataoffset is not None:
            order = dtype.newbyteorder(file.byteorder)
            store = contiguous(positional_read(url), series.dataoffset, series.shape, order, url)
        else:
            store = virtual(_pages_reader(series, url), series.shape, dtype, _series_chunk(series, url))
        sizes = []
        for coarser in levels:
            factors = {a: n / m for a, n, m in zip(axes, levels[0].shape, coarser.shape, strict=True)}
            sizes.append({axis: value * round(factors.get(axis, 1.0)) for axis, value in size.items()})
    return Native(store, axes, sizes[level], {}, tuple(to_zyx(size, 1.0) for size in sizes) if size else ())


@contextlib.contextmanager
def opened(url: str) -> Iterator[tifffile.TiffFile]:
    with parsing(url, "a TIFF file"), _complaints() as complaints:
        with tifffile.TiffFile(io.BufferedReader(RemoteFile(url)) if is_remote(url) else url) as file:
            if "<!" in (file.pages.first.description or "").replace("<!--", ""):
                raise UserError(f"{url}: expected a TIFF file, found one whose description declares entities of XML.")
            yield file
        if complaints:
            raise UserError(f"{url}: expected a TIFF file, found a damaged one: {complaints[0]}.")


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Of a file that was cut off tifffile reads the pages that are left, and says so only in its log.

    Nothing that this thread does comes into that log: what matters in it becomes a sentence.
    """
    found: list[str] = []
    here = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != here:
            return True
        message = record.getMessage()
        if any(part in message for part in ("corrupted", "invalid page offset", "circular reference")):
            found.append(message)
        return False

    logger = tifffile.logger()
    logger.addFilter(keep)
    try:
        yield found
    finally:
        logger.removeFilter(keep)


def _letters(axes: str) -> str | None:
    """The letters of tifffile to ours: S are samples; the one that is neither c, y nor x counts the sections."""
    letters = axes.lower().replace("s", "c")
    if "z" not in letters:
        letters = re.sub("[qit]", "z", letters, count=1)
    fits = set(letters) <= set("tczyx") and len(set(letters)) == len(letters) and {"y", "x"} <= set(letters)
    return letters if fits else None


def page_chunk(page: Any, url: str) -> tuple[int, ...]:
    if not page.is_memmappable and math.prod(page.chunks) * page.dtype.itemsize > CHUNK_BYTES:
        raise UserError(
            f"{url}: expected strips or tiles of at most {CHUNK_BYTES >> 30} GiB, found {page.chunks} {page.dtype}."
        )
    if page.is_memmappable:
        return default_chunk(page.shape, page.dtype.itemsize)
    chunk = [max(1, min(c, s)) for c, s in zip(page.chunks, page.shape, strict=True)]
    if not page.is_tiled:  # strips may be single rows: take many at once
        rows = max(1, (1 << 20) // max(1, int(np.prod(chunk)) * page.dtype.itemsize))
        chunk[0] = min(page.shape[0], chunk[0] * rows)
    return tuple(chunk)


def _series_chunk(series: Any, url: str) -> tuple[int, ...]:
    page = series.keyframe
    return (1,) * (len(series.shape) - len(page.shape)) + page_chunk(page, url)


def _pages_reader(series: Any, url: str) -> Callable[[Region], np.ndarray]:
    outer = series.shape[: len(series.shape) - len(series.keyframe.shape)]
    pages, key = list(series.pages), series.keyframe  # where each lies, so that the file can be closed
    dtype, read_bytes = series.dtype, positional_read(url)

    def read(region: Region) -> np.ndarray:
        ranges = [range(s.start, s.stop) for s in region[: len(outer)]]
        inner = region[len(outer) :]
        out = np.empty([s.stop - s.start for s in region], dtype)
        for index in itertools.product(*ranges):
            page = pages[int(np.ravel_multi_index(index, outer)) if outer else 0]
            to = tuple(i - r.start for i, r in zip(index, ranges, strict=True))
            out[to] = read_page(page, key, inner, read_bytes, url)
        return out

    return read


def read_page(page: Any, key: Any, region: Region, read_bytes: PositionalRead, url: str) -> np.ndarray:
    """The part of a page, from those of its strips or tiles that it touches; `key` knows how they are coded."""
    shape, chunks = key.shape, key.chunks
    counts = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
    out = np.full([s.stop - s.start for s in region], key.nodata, key.dtype)
    touched = [range(s.start // chunk, -(-s.stop // chunk)) for s, chunk in zip(region, chunks, strict=True)]
    for place in itertools.product(*touched):
        index = int(np.ravel_multi_index(place, counts))
        count = page.databytecounts[index]
        if not count:
            continue
        data = read_bytes(page.dataoffsets[index], count)
        if len(data) < count:
            raise UserError(f"{url} ends before its last voxel: it was cut off.")
        with parsing(url, "a TIFF file"):
            tile = key.decode(data, index, jpegtables=page.jpegtables)[0]
        if tile is None:
            continue
        tile = tile[0, ..., 0] if len(shape) == 2 else tile[0]  # depth, rows, columns, samples
        starts = [at * chunk for at, chunk in zip(place, chunks, strict=True)]
        lows = [max(a, s.start) for a, s in zip(starts, region, strict=True)]
        highs = [min(a + n, s.stop) for a, n, s in zip(starts, tile.shape, region, strict=True)]
        to = tuple(slice(a - s.start, b - s.start) for a, b, s in zip(lows, highs, region, strict=True))
        source = tuple(slice(a - o, b - o) for a, b, o in zip(lows, highs, starts, strict=True))
        out[to] = tile[source]
    return out


def voxel_size(file: tifffile.TiffFile) -> dict[str, float]:
    if file.ome_metadata:
        return _ome_size(file.ome_metadata)
    described = file.imagej_metadata or {}
    page = file.pages.first
    unit = described.get("unit")
    if "spacing" not in described or "XResolution" not in page.tags or unit in (None, "pixel"):
        return {}

    def pixel(tag: str) -> float:
        pixels, units = page.tags[tag].value
        return nanometres(units / pixels, unit)

    unit = unit.replace("\\u00B5", "\u00b5")
    return {"z": nanometres(described["spacing"], unit), "y": pixel("YResolution"), "x": pixel("XResolution")}


def _ome_size(metadata: str) -> dict[str, float]:
    pixels = next((e for e in ElementTree.fromstring(metadata).iter() if e.tag.endswith("}Pixels")), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return {}
    found = pixels.attrib
    sizes = {a: (found.get(f"PhysicalSize{a}"), found.get(f"PhysicalSize{a}Unit", "\u00b5m")) for a in "ZYX"}
    return {axis.lower(): nanometres(float(size), unit) for axis, (size, unit) in sizes.items() if size}
