"""`open_volume`: any format, anywhere, recognised by its content; nothing is read but metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsam_jax.volumes import hdf5, npy, tiff
from emsam_jax.volumes.axes import Channel, Native, Sizes, ordered, to_zyx
from emsam_jax.volumes.chunked import check_level, from_spec, open_chunked
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import is_remote, normalise, open_folder, read_key, split_last
from emsam_jax.volumes.volume import Volume

UNFINISHED = "unfinished.json"  # what ingest leaves in a volume until it is whole
_FORMATS = "zarr, OME-Zarr, N5, precomputed, HDF5 (file.h5/dataset), TIFF (file or folder), .npy, TensorStore JSON"


def open_volume(
    url_or_path: str | Path | Mapping[str, Any],
    *,
    level: int = 0,
    channel: Channel = None,
    voxel_size_zyx: Sequence[float] | None = None,
    offset_zyx: Sequence[float] | None = None,
) -> Volume:
    """A volume with axes z, y, x and sizes in nm, whatever the file's own.

    `level` counts the pyramid from the finest, 0. `channel` chooses one of several, or "all" for an axis c in front.
    Voxel size and offset, in nm, replace what the file says.
    """
    if isinstance(url_or_path, Mapping) or str(url_or_path).lstrip().startswith("{"):
        spec = _parse(url_or_path) if not isinstance(url_or_path, Mapping) else url_or_path
        url, native = json.dumps(spec), from_spec(spec)
        check_level(level, 1, url)
    else:
        url = normalise(str(url_or_path))
        native = _open_native(url, level)
    store = ordered(native, channel, url)
    if 0 in store.shape:
        raise VolumeError(f"{url} is empty: its shape (z, y, x) is {store.shape}.")
    size = to_zyx(native.voxel_size, 1.0) if native.voxel_size else None
    size = _three(voxel_size_zyx, "voxel_size_zyx", url) or size
    offset = _three(offset_zyx, "offset_zyx", url) or to_zyx(native.offset, 0.0)
    if size is not None and min(size) <= 0:
        raise VolumeError(f"{url}: expected a voxel size above 0 nm, found {size} (z, y, x); give voxel_size_zyx.")
    return Volume(store, url, voxel_size_zyx=size, offset_zyx=offset, levels=native.levels)


def _open_native(url: str, level: int) -> Native:
    if read_key(open_folder(url), UNFINISHED) is not None:
        raise VolumeError(f"{url} is unfinished: its conversion was stopped. Call emsam_jax.volumes.ingest again.")
    native = open_chunked(url, level)
    if native is not None:
        return native
    if not is_remote(url) and Path(url).is_dir() and (sections := tiff.sections_in(url)):
        check_level(level, 1, url)
        return tiff.open_sections(sections)
    native = _open_file(url, level)
    if native is not None:
        return native
    raise VolumeError(_not_found(url))


def _open_file(url: str, level: int) -> Native | None:
    """The file itself, or the part of the path that is one, with a dataset behind it."""
    file, inner = url, ""
    while True:
        parent, name = split_last(file)
        if not parent:
            return None
        start = read_key(open_folder(parent), name, first_bytes=8) or b""
        if start == hdf5.MAGIC:
            check_level(level, 1, url)
            return hdf5.open_hdf5(file, inner)
        if not inner and start[:4] in tiff.MAGIC:
            return tiff.open_tiff(file, level)
        if not inner and start.startswith(npy.MAGIC):
            check_level(level, 1, url)
            return npy.open_npy(file)
        if not inner and start.lstrip().startswith(b"{"):
            check_level(level, 1, url)
            return from_spec(_parse(read_key(open_folder(parent), name)))
        file, inner = parent, f"{name}/{inner}" if inner else name


def _parse(text: Any) -> Mapping[str, Any]:
    try:
        return json.loads(text)
    except ValueError as error:
        raise VolumeError(f"Expected TensorStore's JSON, found {str(text)[:60]!r}: {error}.") from None


def _three(values: Sequence[float] | None, name: str, url: str) -> Sizes | None:
    if values is None or not len(values):
        return None
    if len(values) != 3:
        raise VolumeError(f"{url}: expected three numbers (z, y, x, in nm) as {name}, found {tuple(values)}.")
    z, y, x = (float(value) for value in values)
    return z, y, x


def _not_found(url: str) -> str:
    if is_remote(url):
        return f"{url}: found nothing there that is one of {_FORMATS}."
    path = Path(url)
    if path.exists():
        return _not_a_volume(path)
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
    """Arrays of a zarr or N5 group; other folders are not searched."""
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
