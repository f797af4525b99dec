"""Formats that are folders of chunks and that TensorStore reads itself: zarr 2 and 3, N5, precomputed."""

import json
from collections.abc import Mapping
from typing import Any

import tensorstore as ts

from emsam_jax.volumes.axes import Native, by_axis, named_axes, nanometres, to_zyx
from emsam_jax.volumes.context import shared_context
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import first_line, folder_spec, open_folder, read_key, split_last
from emsam_jax.volumes.ome import Attributes, Pyramid, array_metadata, multiscale

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "info", "attributes.json")


def read_metadata(url: str) -> dict[str, Attributes]:
    """Those of the known metadata files that lie in the folder, parsed."""
    folder, found = open_folder(url), {}
    for name in METADATA:
        if (content := read_key(folder, name)) is not None:
            try:
                found[name] = json.loads(content)
            except ValueError:
                # A web server may answer any name with a page of its own.
                if not content.lstrip().startswith(b"<"):
                    raise VolumeError(f"{url}/{name}: expected JSON, found {content[:40]!r}.") from None
        if name in ("zarr.json", ".zattrs") and name in found and (name == "zarr.json" or ".zarray" in found):
            break
    return {name: content for name, content in found.items() if isinstance(content, Mapping)}


def open_chunked(url: str, level: int) -> Native | None:
    """None where the folder holds none of these formats, or only a group that names no image."""
    found = read_metadata(url)
    if "zarr.json" in found:
        return _open_zarr3(url, found["zarr.json"], level)
    if ".zarray" in found or ".zattrs" in found:
        return _open_zarr2(url, found.get(".zarray"), found.get(".zattrs", {}), level)
    if "scales" in found.get("info", {}):
        return _open_precomputed(url, found["info"], level)
    if "attributes.json" in found:
        return _open_n5(url, found["attributes.json"], level)
    return None


def open_store(spec: dict[str, Any], url: str) -> ts.TensorStore:
    try:
        return ts.open(spec, context=shared_context(), open=True, read=True).result()
    except ValueError as error:
        raise VolumeError(f"{url}: found a damaged or unknown volume: {first_line(error)}") from None


def check_level(level: int, count: int, url: str) -> None:
    if not 0 <= level < count:
        have = "one level, 0" if count == 1 else f"the levels 0 to {count - 1}"
        raise VolumeError(f"{url} has {have}; found level={level}.")


def _open_zarr3(url: str, metadata: Attributes, level: int) -> Native | None:
    attributes = metadata.get("attributes", {})
    if metadata.get("node_type") == "array":
        names = metadata.get("dimension_names")
        named = {"dimension_names": names} if names and all(names) else {}
        return _open_array(url, "zarr3", {**named, **attributes}, len(metadata["shape"]), level)
    image = multiscale(attributes)
    return None if image is None else _open_level(url, "zarr3", image, level)


def _open_zarr2(url: str, array: Attributes | None, attributes: Attributes, level: int) -> Native | None:
    if array is not None:
        return _open_array(url, "zarr", attributes, len(array.get("shape", ())), level)
    image = multiscale(attributes)
    return None if image is None else _open_level(url, "zarr", image, level)


def _open_level(url: str, driver: str, image: Attributes, level: int) -> Native:
    pyramid = Pyramid(image, url)
    check_level(level, len(pyramid.paths), url)
    path = f"{url}/{pyramid.paths[level]}"
    store = open_store({"driver": driver, "kvstore": folder_spec(path)}, path)
    axes = pyramid.axes or named_axes(None, store.rank)
    if len(axes) != store.rank:
        raise VolumeError(f"{path}: expected an array with the axes {axes}, found the shape {store.shape}.")
    return Native(store, axes, pyramid.sizes[level], pyramid.offsets[level], pyramid.levels)


def _open_array(url: str, driver: str, attributes: Attributes, rank: int, level: int) -> Native:
    """An array that stands alone or, if it says nothing about its voxels, as a level of the image that names it."""
    check_level(level, 1, url)
    store = open_store({"driver": driver, "kvstore": folder_spec(url)}, url)
    axes, size, offset = array_metadata(attributes, rank, driver)
    parent, name = split_last(url)
    if not size and parent:
        above = read_metadata(parent)
        group = above.get("zarr.json", {}).get("attributes") or above.get(".zattrs") or {}
        if (image := multiscale(group)) is not None:
            pyramid = Pyramid(image, parent)
            if name in pyramid.paths:
                at = pyramid.paths.index(name)
                return Native(store, pyramid.axes or axes, pyramid.sizes[at], pyramid.offsets[at])
        if driver == "n5" and name[:1] == "s" and name[1:].isdigit() and "attributes.json" in above:
            return _n5_level(parent, above["attributes.json"], int(name[1:]), alone=True)
    return Native(store, axes, size, offset)


def _open_n5(url: str, group: Attributes, level: int) -> Native | None:
    """An array, or levels s0, s1, .. as COSEM, Paintera and N5's viewer write them; otherwise a plain group."""
    if "dimensions" in group:
        return _open_array(url, "n5", group, len(group["dimensions"]), level)
    levels = 0
    while "dimensions" in read_metadata(f"{url}/s{levels}").get("attributes.json", {}):
        levels += 1
    if not levels:
        return None
    check_level(level, levels, url)
    all_levels = [_n5_level(url, group, i, alone=False) for i in range(levels)]
    chosen = all_levels[level]
    return Native(
        chosen.store,
        chosen.axes,
        chosen.voxel_size,
        chosen.offset,
        tuple(to_zyx(n.voxel_size, 1.0) for n in all_levels),
    )


def _n5_level(url: str, group: Attributes, level: int, alone: bool) -> Native:
    path = f"{url}/s{level}"
    own = read_metadata(path)["attributes.json"]
    store = open_store({"driver": "n5", "kvstore": folder_spec(path)}, path)
    axes, size, offset = array_metadata(own, store.rank, "n5")
    if not size:
        axes, size, offset = array_metadata(group, store.rank, "n5")
        scales = group.get("scales") or group.get("downsamplingFactors") or []
        factors = own.get("downsamplingFactors") or (scales[level] if level < len(scales) else None)
        if factors is not None:
            by = by_axis(factors, axes)
            size = {axis: value * by[axis] for axis, value in size.items()}
    return Native(store, axes, size, offset, () if not alone else (to_zyx(size, 1.0),))


def _open_precomputed(url: str, info: Attributes, level: int) -> Native:
    check_level(level, len(info["scales"]), url)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": folder_spec(url), "scale_index": level}
    store = open_store(spec, url)
    scale = info["scales"][level]
    size = by_axis(scale["resolution"], "xyz")
    corner = by_axis(scale.get("voxel_offset", [0, 0, 0]), "xyz")
    levels = tuple(to_zyx(by_axis(scale["resolution"], "xyz"), 1.0) for scale in info["scales"])
    offset = {axis: corner[axis] * size[axis] for axis in "zyx"}
    return Native(store, "xyzc", size, offset, levels)


def from_spec(spec: Mapping[str, Any]) -> Native:
    """TensorStore's own JSON: axes by the labels of its domain or by its driver, nm by its units."""
    text = json.dumps(spec)
    store = open_store(dict(spec), text if len(text) < 80 else text[:77] + "...")
    driver = spec.get("driver", "zarr")
    while isinstance(spec.get("base"), Mapping):  # casts, downsamplings and the like keep the axes of their base
        spec = spec["base"]
        driver = spec.get("driver", driver)
    axes = named_axes(store.domain.labels, store.rank, driver)
    units = {a: u for a, u in zip(axes, store.dimension_units, strict=True) if u is not None and a in "zyx"}
    size = {axis: nanometres(unit.multiplier, unit.base_unit) for axis, unit in units.items()}
    origin = by_axis([float(i) for i in store.domain.inclusive_min], axes)
    return Native(store, axes, size, {axis: origin[axis] * size.get(axis, 1.0) for axis in origin})
