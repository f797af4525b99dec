"""`open_volume`: any format, anywhere, recognised by its content; nothing is read but metadata."""

import itertools
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

from emsam_jax.errors import UserError
from emsam_jax.storage import UNFINISHED, Field, is_remote, normalise, open_folder, read_bounded, split_last
from emsam_jax.volumes.axes import Channel, Native, Sizes, ordered, sizes, to_zyx
from emsam_jax.volumes.box import Voxel
from emsam_jax.volumes.formats import (
    CHUNK_BYTES,
    check_level,
    check_remote,
    from_spec,
    hdf5,
    npy,
    open_chunked,
    sections,
    tiff,
)
from emsam_jax.volumes.volume import AFFINITY_OFFSETS, Volume

_NUMBERS = {"bool", "bfloat16", *(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (4, 8, 16, 32, 64))}
_MOST_VOXELS = 1 << 60
_FORMATS = (
    "zarr, OME-Zarr, N5, precomputed, HDF5 (file.h5/dataset), TIFF, PNG, JPEG (file or folder), .npy, TensorStore JSON"
)


def open_volume(
    url_or_path: str | Path | Mapping[str, Any],
    *,
    level: int = 0,
    channel: Channel = None,
    voxel_size_zyx: Sequence[int | float] | None = None,
    offset_zyx: Sequence[int | float] | None = None,
    allow_gaps: bool = False,
) -> Volume:
    """A volume with axes z, y, x and sizes in nm, whatever the file's own.

    `level` counts the pyramid from the finest, 0. `channel` chooses one of several, or "all" for an axis c in front;
    affinities then have the `offsets` that were kept with them.
    Voxel size and offset, in nm, replace what the file says. With `allow_gaps`, sections that are missing from a
    numbered folder are 0.
    """
    if isinstance(url_or_path, Mapping) or str(url_or_path).lstrip().startswith("{"):
        spec = url_or_path if isinstance(url_or_path, Mapping) else _parse(str(url_or_path), "TensorStore's JSON")
        native = from_spec(spec)
        url = json.dumps(spec)
        check_level(level, 1, url)
    else:
        url = normalise(str(url_or_path))
        try:
            native = _open_native(url, level, allow_gaps)
        except UserError as problem:
            raise UserError(f"{url}: {problem}") if str(problem).startswith("Expected") else problem from None
    check_store(native.store, url)
    store = ordered(native, channel, url)
    if 0 in store.shape:
        raise UserError(f"{url} is empty: its shape (z, y, x) is {store.shape}.")
    declared = {
        "voxel_size_zyx": _three(voxel_size_zyx, "voxel_size_zyx", url),
        "offset_zyx": _three(offset_zyx, "offset_zyx", url),
    }
    for name, fault in native.faults.items():
        if declared[name] is None:
            raise UserError(f"{fault} Correct it, or give {name}.")
    size = declared["voxel_size_zyx"] or (to_zyx(native.voxel_size, 1.0) if native.voxel_size else None)
    offset = declared["offset_zyx"] or to_zyx(native.offset, 0.0)
    if size is not None and not all(0 < side < math.inf for side in size):
        raise UserError(f"{url}: expected a voxel size above 0 nm, found {size} (z, y, x); give voxel_size_zyx.")
    if not all(map(math.isfinite, offset)):
        raise UserError(f"{url}: expected an offset in nm, found {offset} (z, y, x); give offset_zyx.")
    offsets = _read_offsets(native.attributes[AFFINITY_OFFSETS], store.shape[0]) if channel == "all" else ()
    return Volume(
        store, url, voxel_size_zyx=size, offset_zyx=offset, levels=native.levels, offsets=offsets, native=native
    )


def _read_offsets(field: Field, channels: int) -> tuple[Voxel, ...]:
    """Voxels z, y, x of each channel; empty where the file says nothing."""
    found = [offset.numbers(3) for offset in field]
    if field and (len(found) != channels or not all(map(float.is_integer, itertools.chain(*found)))):
        raise field.unlike(f"{channels} offsets of whole voxels z, y, x, one a channel")
    return tuple((int(z), int(y), int(x)) for z, y, x in found)


def check_store(store: ts.TensorStore, url: str) -> None:
    """Refuses what is not numbers in chunks that fit into memory."""
    if store.dtype.name not in _NUMBERS:
        raise UserError(f"{url}: expected an array of real numbers, found the type {store.dtype.name}.")
    if math.prod(store.shape) > _MOST_VOXELS:
        raise UserError(f"{url}: expected a volume of at most 2**60 voxels, found the shape {store.shape}.")
    chunk = store.chunk_layout.read_chunk.shape or ()
    if math.prod(side or 1 for side in chunk) * store.dtype.numpy_dtype.itemsize > CHUNK_BYTES:
        raise UserError(
            f"{url}: expected chunks of at most {CHUNK_BYTES >> 30} GiB, found chunks of {tuple(chunk)} "
            f"{store.dtype.name}; ask whoever wrote it for smaller ones."
        )


def _open_native(url: str, level: int, allow_gaps: bool) -> Native:
    parent, name = split_last(url)
    image = parent if name.isdigit() else url  # of a level
    if read_bounded(open_folder(image), UNFINISHED) is not None:
        raise UserError(
            f"{image} is unfinished: its conversion was stopped. Call what wrote it again, such as emsam ingest."
        )
    native = open_chunked(url, level)
    if native is not None:
        return native
    if not is_remote(url) and Path(url).is_dir() and (found := sections.find_sections(url)):
        check_level(level, 1, url)
        return sections.open_sections(url, found, allow_gaps)
    native = _open_file(url, level)
    if native is not None:
        return native
    raise UserError(_not_found(url))


def _open_file(url: str, level: int) -> Native | None:
    """Opens the file, or the part of the path that is one, with a dataset behind it."""
    file, inner = url, ""
    while True:
        parent, name = split_last(file)
        if not parent:
            return None
        start = read_bounded(open_folder(parent), name, first_bytes=8) or b""
        if start == hdf5.MAGIC:
            check_level(level, 1, url)
            return hdf5.open_hdf5(file, inner)
        if not inner and start[:4] in tiff.MAGIC:
            return tiff.open_tiff(file, level)
        if not inner and start.startswith(sections.PICTURES):
            check_level(level, 1, url)
            return sections.open_picture(file)
        if not inner and start.startswith(npy.MAGIC):
            check_level(level, 1, url)
            return npy.open_npy(file)
        if not inner and start.lstrip().startswith(b"{"):
            check_level(level, 1, url)
            return _open_spec(file, read_bounded(open_folder(parent), name) or b"")
        file, inner = parent, f"{name}/{inner}" if inner else name


def _open_spec(file: str, content: bytes) -> Native:
    spec = _parse(content, file)
    if is_remote(file):
        check_remote(spec, file)
    return from_spec(spec)


def _parse(content: bytes | str, file: str) -> Mapping[str, Any]:
    field = Field.parse(content, file)
    if not isinstance(field.value, dict):
        raise field.unlike("TensorStore's JSON")
    return field.value


def _three(values: Sequence[int | float] | None, name: str, url: str) -> Sizes | None:
    if values is None or not len(values):
        return None
    if len(values) != 3 or not all(isinstance(value, numbers.Real) and math.isfinite(value) for value in values):
        raise UserError(f"{url}: expected three numbers (z, y, x, in nm) as {name}, found {tuple(values)}.")
    return sizes(values)


def _not_found(url: str) -> str:
    if is_remote(url):
        return f"{url}: found nothing there that is one of {_FORMATS}."
    path = Path(url)
    if path.is_dir():
        return _not_a_volume(path)
    if file := next((each for each in (path, *path.parents) if each.is_file()), None):
        return _not_a_volume(file)
    parent = next((folder for folder in path.parents if folder.is_dir()), path.parent)
    inside = _arrays_in(parent)
    if inside:
        return f"{url}: there is no array {path.relative_to(parent)} in {parent}. It has: {', '.join(inside)}."
    return f"{url}: there is no such file or folder."


def _not_a_volume(path: Path) -> str:
    if path.is_dir():
        inside = _arrays_in(path)
        if inside:
            return f"{path} is a group: expected the path of an array. It has: {', '.join(inside)}."
        return f"{path} is a folder without a volume: expected one of {_FORMATS}."
    return f"{path}: expected one of {_FORMATS}; found a file whose first bytes are none of theirs."


def _arrays_in(folder: Path, depth: int = 4, limit: int = 20) -> list[str]:
    """Lists arrays of a zarr or N5 group; other folders are not searched."""
    names: list[str] = []
    if not any((folder / name).exists() for name in (".zgroup", "zarr.json", "attributes.json")):
        return names

    def visit(at: Path, left: int) -> None:
        for child in sorted(child for child in at.iterdir() if child.is_dir()):
            if len(names) >= limit:
                return
            if _is_array(child):
                names.append(str(child.relative_to(folder)))
            elif left:
                visit(child, left - 1)

    visit(folder, depth)
    return names


def _is_array(folder: Path) -> bool:
    for name, key in ((".zarray", "shape"), ("zarr.json", "shape"), ("attributes.json", "dimensions")):
        if (folder / name).exists():
            return key in (folder / name).read_text()
    return False
