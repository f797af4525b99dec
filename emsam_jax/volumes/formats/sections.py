"""Opens one section a file: a folder of TIFF, PNG or JPEG files, in the order of the numbers in their names."""

import contextlib
import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import RemoteFile, is_remote
from emsam_jax.volumes.axes import Native
from emsam_jax.volumes.formats import tiff
from emsam_jax.volumes.formats.npy import positional_read
from emsam_jax.volumes.formats.virtual import CHUNK_BYTES, Region, virtual

PICTURES = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # first bytes of PNG and JPEG
_SUFFIXES = ((".tif", ".tiff"), (".png",), (".jpg", ".jpeg"))  # a folder's sections are all of one kind
_GREY = {"1": np.dtype(bool), "L": np.dtype("u1"), "I;16": np.dtype("u2"), "I": np.dtype("i4"), "F": np.dtype("f4")}
_LISTED = 10


def find_sections(folder: str) -> list[Path]:
    """Lists the files of the first kind that there is, in the order of their numbers."""
    files = [path for path in Path(folder).iterdir() if path.is_file()]
    for suffixes in _SUFFIXES:
        if found := [path for path in files if path.suffix.lower() in suffixes]:
            return sorted(found, key=_by_number)
    return []


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def with_gaps(paths: Sequence[Path]) -> list[Path | None]:
    """Inserts None for each section whose number is missing."""
    parts = [re.split(r"(\d+)", path.stem) for path in paths]
    if len({len(names) for names in parts}) > 1:
        return list(paths)
    counting = [at for at in range(1, len(parts[0]), 2) if len({int(names[at]) for names in parts}) == len(parts)]
    if len(counting) != 1 or len(paths) < 2:
        return list(paths)
    by_number = {int(names[counting[0]]): path for names, path in zip(parts, paths, strict=True)}
    numbers = sorted(by_number)
    step = math.gcd(*(b - a for a, b in itertools.pairwise(numbers)))
    wanted = range(numbers[0], numbers[-1] + 1, step)
    return [by_number.get(number) for number in wanted] if len(wanted) <= 2 * len(paths) else list(paths)


def open_sections(folder: str, paths: Sequence[Path], allow_gaps: bool) -> Native:
    """The first section's shape and dtype are everybody's; with gaps allowed, those that are missing are 0."""
    sections = with_gaps(paths)
    gaps = [z for z, path in enumerate(sections) if path is None]
    listed = ", ".join(map(str, gaps[:_LISTED])) + (f" and {len(gaps) - _LISTED} more" if len(gaps) > _LISTED else "")
    gaps_told = f"{len(gaps)} of {len(sections)} sections are missing by the numbers of the files (z {listed})"
    if gaps and not allow_gaps:
        before = next(path for path in reversed(sections[: gaps[0]]) if path is not None)
        raise UserError(
            f"{folder}: {gaps_told}; the first after {before.name}. Put them there, or have gaps filled with 0 "
            "(ingest --allow_gaps, or open_volume with allow_gaps=True)."
        )
    shape, dtype, chunk, size = _describe(str(paths[0]))

    def read(region: Region) -> np.ndarray:
        z, *yx = region
        return np.stack([_read(path, shape, dtype, (yx[0], yx[1])) for path in sections[z]])

    store = virtual(read, (len(sections), *shape), dtype, (1, *chunk))
    notes = (f"{folder}: {gaps_told}: they are read as 0.",) if gaps else ()
    return Native(store, "zyx", size, notes=notes)


def open_picture(url: str) -> Native:
    """A single PNG or JPEG."""
    shape, dtype, chunk, _ = _describe(url)
    return Native(virtual(lambda yx: _read_picture(url, dtype)[yx], shape, dtype, chunk), "yx")


def _describe(url: str) -> tuple[tuple[int, ...], np.dtype, tuple[int, ...], dict[str, float]]:
    """Shape, dtype, chunk and voxel size of a section."""
    if not url.lower().endswith(_SUFFIXES[0]):
        with _picture(url) as image:
            if image.mode not in _GREY:
                raise UserError(f"{url}: expected a grey section, found the mode {image.mode}; convert it to grey.")
            shape = (image.height, image.width)
            return shape, _GREY[image.mode], shape, {}
    with tiff.opened(url) as file:
        page = file.pages.first
        if len(page.shape) != 2:
            raise UserError(f"{url}: expected a grey section (y, x), found the shape {page.shape}.")
        if page.dtype is None:
            raise UserError(f"{url}: found pixels of a type that cannot be read.")
        return page.shape, page.dtype, tiff.page_chunk(page, url), tiff.voxel_size(file)


def _read(
    path: Path | None, shape: tuple[int, ...], dtype: np.dtype, yx: tuple[slice, slice]
) -> Shaped[np.ndarray, "y x"]:
    if path is None:
        return np.zeros([s.stop - s.start for s in yx], dtype)
    found = _describe(str(path))[:2]
    if found != (shape, dtype):
        raise UserError(f"{path}: expected a section like the first one, {shape} {dtype}; found {found[0]} {found[1]}.")
    if path.suffix.lower() not in _SUFFIXES[0]:
        return _read_picture(str(path), dtype)[yx]
    with tiff.opened(str(path)) as file:
        page = file.pages.first
        return tiff.read_page(page, page, yx, positional_read(str(path)), str(path))


def _read_picture(url: str, dtype: np.dtype) -> Shaped[np.ndarray, "y x"]:
    with _picture(url) as image:
        return np.asarray(image, dtype)


def _bytes(url: str) -> io.RawIOBase:
    return RemoteFile(url) if is_remote(url) else io.FileIO(url)


@contextlib.contextmanager
def _picture(url: str) -> Iterator[Any]:
    """Not by PIL's own `open`, which takes a large section for an attack."""
    from PIL.JpegImagePlugin import JpegImageFile  # loaded where it is needed: few volumes are pictures
    from PIL.PngImagePlugin import PngImageFile

    with parsing(url, "a PNG or JPEG file"), io.BufferedReader(_bytes(url)) as file:
        kinds = zip(PICTURES, (PngImageFile, JpegImageFile), strict=True)
        kind = next((kind for magic, kind in kinds if file.peek(8).startswith(magic)), None)
        if kind is None:
            raise UserError(f"{url}: expected a PNG or JPEG file; found a file whose first bytes are neither's.")
        with kind(file) as image:
            if image.width * image.height * _GREY.get(image.mode, np.dtype("u4")).itemsize > CHUNK_BYTES:
                raise UserError(f"{url}: expected a section of at most {CHUNK_BYTES >> 30} GiB, found more.")
            yield image
