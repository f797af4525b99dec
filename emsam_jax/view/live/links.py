"""Links to a scene whose volumes lie in buckets, for anyone's neuroglancer: the state stands in the URL."""

from typing import Any

import neuroglancer as ng

from emsam_jax.errors import UserError
from emsam_jax.view.live.arrangement import arrange
from emsam_jax.view.live.scene import Scene
from emsam_jax.volumes import Volume

_BUCKETS = ("gs://", "s3://", "https://", "http://")
_FORMATS = {"zarr": "zarr2", "zarr3": "zarr3", "n5": "n5", "neuroglancer_precomputed": "precomputed"}
_COLOURED = 300  # objects, the largest: a link is to be sent; others have neuroglancer's own colours


def link_to(scene: Scene) -> str:
    """Returns the URL; what the browser reads by itself is in its formats, and compares nothing."""
    sources = {name: _source(levels.finest) for name, levels in scene.volumes.items()}
    state = arrange(scene, sources)
    for name in ("segmentation", "truth"):
        if name in sources:
            colours = state.layers[name].segment_colors.to_json()
            state.layers[name].segment_colors = dict(list(colours.items())[:_COLOURED])
    return ng.to_url(state)


def _source(volume: Volume) -> ng.LayerDataSource:
    """The volume as the browser reads it; where its file does not know its place, or has channels, that is declared."""
    driver = volume.native.store.spec().to_json()["driver"] if volume.native else ""
    if not volume.url.startswith(_BUCKETS):
        raise UserError(
            f"--link: expected volumes in buckets ({', '.join(_BUCKETS)}), found {volume.url}; leave --link out to "
            "serve it."
        )
    if driver not in _FORMATS:
        raise UserError(
            f"--link: expected zarr, N5 or precomputed, which browsers read by themselves, found {volume.url}; "
            "emsam ingest converts it."
        )
    source: dict[str, Any] = {"url": f"{_FORMATS[driver]}://{volume.url}"}
    if volume.native and ("c" in volume.native.axes or not volume.voxel_size_known):
        size = dict(zip("zyx", volume.voxel_size_zyx, strict=True))
        names = ["c^" if axis == "c" else axis for axis in volume.native.axes]
        units = ["nm" if axis in size else "" for axis in volume.native.axes]
        scales = [size.get(axis, 1) for axis in volume.native.axes]
        dimensions = ng.CoordinateSpace(names=names, units=units, scales=scales)
        source["transform"] = ng.CoordinateSpaceTransform(output_dimensions=dimensions)
    return ng.LayerDataSource(**source)
