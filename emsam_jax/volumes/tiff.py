"""TIFF stacks, one file or a folder of sections, through TensorStore: only the tiles or strips that are needed."""

import io
import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from emsam_jax.volumes.axes import Native, nanometres, to_zyx
from emsam_jax.volumes.chunked import check_level
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import RemoteFile, is_remote
from emsam_jax.volumes.npy import contiguous, positional_read
from emsam_jax.volumes.virtual import Region, default_chunk, virtual

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders
_SUFFIXES = (".tif", ".tiff")


def sections_in(folder: str) -> list[Path]:
    """The folder's TIFF files in the order of the numbers in their names."""

    def by_number(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted((path for path in Path(folder).iterdir() if path.suffix.lower() in _SUFFIXES), key=by_number)


def open_sections(paths: list[Path]) -> Native:
    """One section a file: the first one's shape and dtype are everybody's."""
    with _opened(str(paths[0])) as file:
        page = file.pages.first
        shape, dtype, chunk = page.shape, page.dtype, _page_chunk(page)
        size = _voxel_size(file, 0)
    if len(shape) != 2:
        raise VolumeError(f"{paths[0]}: expected a grey section (y, x), found the shape {shape}.")
    if dtype is None:
        raise VolumeError(f"{paths[0]}: found pixels of a type that cannot be read.")

    def read(region: Region) -> np.ndarray:
        z, *yx = region
        sections = []
        for path in paths[z]:
            with _opened(str(path)) as file:
                page = file.pages.first
                if page.shape != shape or page.dtype != dtype:
                    raise VolumeError(
                        f"{path}: expected a section like the first one, {shape} {dtype}; "
                        f"found {page.shape} {page.dtype}."
                    )
                sections.append(_read_page(page, tuple(yx), threading.Lock(), str(path)))
        return np.stack(sections)

    return Native(virtual(read, (len(paths), *shape), dtype, (1, *chunk)), "zyx", size)


def open_tiff(url: str, level: int) -> Native:
    file = _opened(url)
    if not file.series:
        raise VolumeError(f"{url}: expected a TIFF with pages, found none.")
    levels = file.series[0].levels
    check_level(level, len(levels), url)
    series = levels[level]
    axes = _letters(series.axes)
    dtype = series.dtype
    if axes is None or dtype is None:
        raise VolumeError(
            f"{url}: expected axes z, y, x (and c, t), found {series.axes} with the shape {series.shape}."
        )
    if series.dataoffset is not None:
        start, order = series.dataoffset, dtype.newbyteorder(file.byteorder)
        file.close()
        store = contiguous(positional_read(url), start, series.shape, order, url)
    else:
        store = virtual(_pages_reader(series, url), series.shape, dtype, _series_chunk(series))
    size = _voxel_size(file, level)
    if size and level:
        factors = {a: levels[0].shape[i] / n for i, (a, n) in enumerate(zip(axes, series.shape, strict=True))}
        size = {axis: value * round(factors.get(axis, 1.0)) for axis, value in size.items()}
    return Native(store, axes, size, {}, (to_zyx(size, 1.0),) * 0)


def _opened(url: str) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(io.BufferedReader(RemoteFile(url)) if is_remote(url) else url)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise VolumeError(f"{url}: found a damaged TIFF file: {error}.") from None


def _letters(axes: str) -> str | None:
    """The letters of tifffile to ours: S are samples; the one that is neither c, y nor x counts the sections."""
    letters = axes.lower().replace("s", "c")
    if "z" not in letters:
        letters = re.sub("[qit]", "z", letters, count=1)
    fits = set(letters) <= set("tczyx") and len(set(letters)) == len(letters) and {"y", "x"} <= set(letters)
    return letters if fits else None


def _page_chunk(page: Any) -> tuple[int, ...]:
    if page.is_memmappable:
        return default_chunk(page.shape, page.dtype.itemsize)
    chunk = [max(1, min(c, s)) for c, s in zip(page.chunks, page.shape, strict=True)]
    if not page.is_tiled:  # strips may be single rows: take many at once
        rows = max(1, (1 << 20) // max(1, int(np.prod(chunk)) * page.dtype.itemsize))
        chunk[0] = min(page.shape[0], chunk[0] * rows)
    return tuple(chunk)


def _series_chunk(series: Any) -> tuple[int, ...]:
    page = series.keyframe
    return (1,) * (len(series.shape) - len(page.shape)) + _page_chunk(page)


def _pages_reader(series: Any, url: str) -> Callable[[Region], np.ndarray]:
    lock = threading.Lock()  # of the file's position
    outer = series.shape[: len(series.shape) - len(series.keyframe.shape)]

    def read(region: Region) -> np.ndarray:
        ranges = [range(s.start, s.stop) for s in region[: len(outer)]]
        inner = region[len(outer) :]
        out = np.empty([s.stop - s.start for s in region], series.dtype)
        for index in itertools.product(*ranges):
            with lock:
                page = series.pages[int(np.ravel_multi_index(index, outer)) if outer else 0]
            to = tuple(i - r.start for i, r in zip(index, ranges, strict=True))
            out[to] = _read_page(page, inner, lock, url)
        return out

    return read


def _read_page(page: Any, region: Region, lock: threading.Lock, url: str) -> np.ndarray:
    """The part of a page, from those of its strips or tiles that it touches."""
    key = page.keyframe
    shape, chunks = key.shape, key.chunks
    counts = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
    out = np.full([s.stop - s.start for s in region], key.nodata, key.dtype)
    touched = [range(s.start // chunk, -(-s.stop // chunk)) for s, chunk in zip(region, chunks, strict=True)]
    for place in itertools.product(*touched):
        index = int(np.ravel_multi_index(place, counts))
        count, handle = page.databytecounts[index], page.parent.filehandle
        if not count:
            continue
        with lock:
            handle.seek(page.dataoffsets[index])
            data = handle.read(count)
        if len(data) < count:
            raise VolumeError(f"{url} ends before its last voxel: it was cut off.")
        try:
            tile = key.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as error:
            raise VolumeError(f"{url}: a tile or strip cannot be decoded: {error}") from error
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


def _voxel_size(file: tifffile.TiffFile, level: int) -> dict[str, float]:
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
