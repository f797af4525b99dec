"""Opens folders of chunks that TensorStore reads itself: zarr 2 and 3, N5, precomputed."""

import json
import re
from collections.abc import Mapping
from typing import Any

import tensorstore as ts

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import Field, folder_spec, open_folder, read_bounded, shared_context, split_last
from emsam_jax.volumes.axes import NOTHING, Native, by_axis, named_axes, nanometres, to_zyx
from emsam_jax.volumes.formats.ome import Pyramid, array_metadata, multiscale
from emsam_jax.volumes.formats.precomputed import describe_scale

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "info", "attributes.json")
_REMOTE = ("http", "gcs", "s3")
_LEVELS = 32  # a web server may answer any name


def read_metadata(url: str) -> dict[str, Field]:
    """Reads the known metadata files in the folder."""
    folder, found = open_folder(url), {}
    for name in METADATA:
        # A web server may answer any name with a page of its own.
        if (content := read_bounded(folder, name)) is not None and not content.lstrip().startswith(b"<"):
            found[name] = Field.parse(content, f"{url}/{name}")
        if name in ("zarr.json", ".zattrs") and name in found and (name == "zarr.json" or ".zarray" in found):
            break
    return {name: content for name, content in found.items() if isinstance(content.value, dict)}


def open_chunked(url: str, level: int) -> Native | None:
    """Opens an array; None where the folder holds none of these formats, or only a group that names no image."""
    found = read_metadata(url)
    if "zarr.json" in found:
        return _open_zarr3(url, found["zarr.json"], level)
    if ".zarray" in found or ".zattrs" in found:
        return _open_zarr2(url, ".zarray" in found, found.get(".zattrs", NOTHING), level)
    if "scales" in found.get("info", NOTHING):
        return _open_precomputed(url, found["info"], level)
    if "attributes.json" in found:
        return _open_n5(url, found["attributes.json"], level)
    return None


def open_store(spec: dict[str, Any], url: str) -> ts.TensorStore:
    with parsing(url, "a volume"):
        return ts.open(spec, context=shared_context(), open=True, read=True).result()


def check_level(level: int, count: int, url: str) -> None:
    if not 0 <= level < count:
        have = "one level, 0" if count == 1 else f"the levels 0 to {count - 1}"
        raise UserError(f"{url} has {have}; found level={level}.")


def _open_zarr3(url: str, metadata: Field, level: int) -> Native | None:
    attributes = metadata["attributes"]
    if metadata["node_type"].value == "array":
        names = [name.value for name in metadata["dimension_names"]]
        if names and all(names):
            if not isinstance(attributes.value, dict | None):
                raise attributes.unlike("a mapping")
            attributes = Field({"dimension_names": names} | (attributes.value or {}), attributes.file, "attributes")
        return _open_array(url, "zarr3", attributes, level)
    image = multiscale(attributes)
    return None if image is None else _open_level(url, "zarr3", image, level)


def _open_zarr2(url: str, is_array: bool, attributes: Field, level: int) -> Native | None:
    if is_array:
        return _open_array(url, "zarr", attributes, level)
    image = multiscale(attributes)
    return None if image is None else _open_level(url, "zarr", image, level)


def _open_level(url: str, driver: str, image: Field, level: int) -> Native:
    pyramid = Pyramid(image)
    check_level(level, len(pyramid.paths), url)
    path = f"{url}/{pyramid.paths[level]}"
    store = open_store({"driver": driver, "kvstore": folder_spec(path)}, path)
    axes = pyramid.axes or named_axes(None, store.rank)
    if len(axes) != store.rank:
        raise UserError(f"{path}: expected an array with the axes {axes}, found the shape {store.shape}.")
    if driver == "zarr3":
        attributes = Field(store.spec().to_json()["metadata"].get("attributes"), f"{path}/zarr.json", "attributes")
    else:
        attributes = read_metadata(path).get(".zattrs", NOTHING)
    return Native(store, axes, pyramid.sizes[level], pyramid.offsets[level], pyramid.levels, attributes=attributes)


def _open_array(url: str, driver: str, attributes: Field, level: int) -> Native:
    """Opens an array by itself or, if it has no facts about its voxels, as a level of the image that names it."""
    check_level(level, 1, url)
    store = open_store({"driver": driver, "kvstore": folder_spec(url)}, url)
    axes, size, offset, faults = array_metadata(attributes, store.rank, driver)
    parent, name = split_last(url)
    if not size and not faults and parent:
        above = read_metadata(parent)
        group = above["zarr.json"]["attributes"] if "zarr.json" in above else above.get(".zattrs", NOTHING)
        if (image := multiscale(group)) is not None:
            pyramid = Pyramid(image)
            if name in pyramid.paths and len(pyramid.axes or axes) == store.rank:
                at = pyramid.paths.index(name)
                axes, size, offset = pyramid.axes or axes, pyramid.sizes[at], pyramid.offsets[at]
                return Native(store, axes, size, offset, attributes=attributes)
        if driver == "n5" and name[:1] == "s" and name[1:].isdigit() and "attributes.json" in above:
            return _n5_level(parent, above["attributes.json"], int(name[1:]), alone=True)
    return Native(store, axes, size, offset, faults=faults, attributes=attributes)


def _open_n5(url: str, group: Field, level: int) -> Native | None:
    """Opens an array, or levels s0, s1, .. as COSEM, Paintera and N5's viewer write them; otherwise a plain group."""
    if "dimensions" in group:
        return _open_array(url, "n5", group, level)
    levels = 0
    while levels < _LEVELS and "dimensions" in read_metadata(f"{url}/s{levels}").get("attributes.json", NOTHING):
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
        faults=chosen.faults,
    )


def _n5_level(url: str, group: Field, level: int, alone: bool) -> Native:
    path = f"{url}/s{level}"
    own = read_metadata(path)["attributes.json"]
    store = open_store({"driver": "n5", "kvstore": folder_spec(path)}, path)
    axes, size, offset, faults = array_metadata(own, store.rank, "n5")
    if not size and not faults:
        axes, size, offset, faults = array_metadata(group, store.rank, "n5")
        scales = list(group["scales"] or group["downsamplingFactors"])
        factors = own["downsamplingFactors"] or (scales[level] if level < len(scales) else None)
        if factors:
            by = by_axis(factors.numbers(len(axes), len(size)), axes)
            size = {axis: value * by[axis] for axis, value in size.items()}
    return Native(store, axes, size, offset, () if not alone else (to_zyx(size, 1.0),), faults=faults)


def _open_precomputed(url: str, info: Field, level: int) -> Native:
    check_level(level, len(list(info["scales"])), url)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": folder_spec(url), "scale_index": level}
    return describe_scale(open_store(spec, url), url, info, level)


def from_spec(spec: Mapping[str, Any]) -> Native:
    """Opens TensorStore's own JSON: axes by the labels of its domain or by its driver, nm by its units."""
    with parsing("A TensorStore specification", "JSON"):
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


def check_remote(spec: Any, file: str) -> None:
    """Refuses remote specs that name local files: only places that the network serves too."""
    if isinstance(spec, Mapping):
        driver, base = spec.get("driver"), any(key in spec for key in ("kvstore", "base", "layers"))
        if (not base and driver not in _REMOTE) or "context" in spec:
            raise UserError(f"{file}: expected a specification of remote places only, found {json.dumps(spec)[:200]}.")
        for key in ("kvstore", "base", "manifest"):
            if key in spec:
                check_remote(spec[key], file)
        for layer in spec.get("layers") or ():
            check_remote(layer, file)
    elif not isinstance(spec, str) or re.match(r"(https?|gs|s3)://[^|]*$", spec) is None:
        raise UserError(f"{file}: expected a specification of remote places only, found {json.dumps(spec)[:200]}.")
