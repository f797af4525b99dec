"""The layers of a scene in neuroglancer, their shaders and controls, and what is looked at first."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import neuroglancer as ng
import numpy as np

from emsam_jax.view.colours import BOTH, MERGE, SPLIT, UNSEGMENTED, Rgb
from emsam_jax.view.exhibit import Verdict
from emsam_jax.view.live.scene import Place, Scene, middle_of
from emsam_jax.view.live.served import dimensions_of
from emsam_jax.volumes import Sizes, Volume

ERRORS = "errors"
_PIXELS = 380  # a panel's shorter side, about: what is small enough fills it
_COARSEST = 4  # voxels a pixel, of what is not
_OPACITY = 0.4, 0.1  # of objects: selected (all, where none is), and others
_CODES = {
    "cut_off": (Verdict.SPLIT, SPLIT),
    "joined": (Verdict.MERGE, MERGE),
    "both": (Verdict.BOTH, BOTH),
    "unsegmented": (Verdict.UNSEGMENTED, UNSEGMENTED),
}
# As everywhere, a threshold merges where the affinity is above 1 - threshold; 0 shows the affinities themselves.
_AFFINITIES = """#uicontrol float threshold slider(min=0, max=1, step=0.01, default=0)
void main() {{
  vec3 affinities = vec3({channels});
  emitRGB(threshold > 0.0 ? step(vec3(1.0 - threshold), affinities) : affinities);
}}
"""
_PLACES = """void main() {
  setColor(prop_colour());
  setPointMarkerSize(9.0);
}
"""


def arrange(
    scene: Scene, sources: Mapping[str, Any], at_zyx_nm: Sizes | None = None, selected: int | None = None
) -> ng.ViewerState:
    """Returns the viewer's state; `sources` are those of the volumes by their layers' names."""
    state, main = ng.ViewerState(), scene.main
    state.title = scene.title
    state.dimensions = _world(main.voxel_size_zyx)
    last = [*scene.volumes.values()][-1].finest
    place = at_zyx_nm or middle_of((scene.segmentation.finest if scene.segmentation else None) or last)
    state.position = [at / size for at, size in zip(place[::-1], main.voxel_size_zyx[::-1], strict=True)]
    finest = min(main.voxel_size_zyx)
    longest = max(side * size for side, size in zip(main.shape[-3:], main.voxel_size_zyx, strict=True)) / finest
    state.cross_section_scale = min(longest / _PIXELS, _COARSEST)
    state.projection_scale = 1.5 * longest
    state.layout = "4panel"
    objects = [name for name in ("segmentation", "truth") if name in sources]
    for name, source in sources.items():
        state.layers.append(name, _LAYERS[name](scene, source))
        state.layers[name].visible = name in ("raw", *objects[:1]) or not objects
    if selected:
        state.layers[objects[0]].segments = [selected]
    for name, places in scene.places.items():
        state.layers.append(name, places_layer(_annotations(places), objects))
    if scene.places:
        state.selected_layer = ng.SelectedLayerState(layer=next(iter(scene.places)), visible=True, size=380)
    return state


def source_of(served: Any, volume: Volume) -> ng.LayerDataSource:
    """Places a volume in the world: offsets need not be whole voxels."""
    rank = len(volume.shape)
    shift = [place / size for place, size in zip(volume.offset_zyx, volume.voxel_size_zyx, strict=True)]
    matrix = np.concatenate([np.eye(rank), np.zeros((rank, 1))], 1)
    matrix[rank - 3 :, rank] = shift
    dimensions = dimensions_of(volume.voxel_size_zyx, channels=rank == 4)
    transform = ng.CoordinateSpaceTransform(output_dimensions=dimensions, matrix=matrix)
    return ng.LayerDataSource(url=served, transform=transform)


def places_layer(annotations: Sequence[ng.Annotation], objects: Iterable[str] = ()) -> ng.LocalAnnotationLayer:
    """A layer of places in nm, whose list stands at the side."""
    linked = {{"segmentation": "segments", "truth": "neurons"}[name]: name for name in objects}
    return ng.LocalAnnotationLayer(
        dimensions=_world((1.0, 1.0, 1.0)),
        annotations=annotations,
        annotation_properties=[ng.AnnotationPropertySpec(id="colour", type="rgb", default="#ffffff")],
        annotation_relationships=["segments", "neurons"],
        linked_segmentation_layer=linked,
        shader=_PLACES,
        tab="annotations",
    )


def point(number: str, at_zyx_nm: Sizes, text: str, colour: Rgb, segments: Sequence[Sequence[int]] = ((), ())):
    return ng.PointAnnotation(
        id=number,
        point=at_zyx_nm[::-1],
        description=text,
        props=[_hex(colour)],
        segments=[list(ids) for ids in segments],
    )


def line(number: str, ends_zyx_nm: Sequence[Sizes], text: str, colour: Rgb) -> ng.LineAnnotation:
    a, b = (end[::-1] for end in ends_zyx_nm)
    return ng.LineAnnotation(id=number, point_a=a, point_b=b, description=text, props=[_hex(colour)], segments=[[], []])


def _annotations(places: Sequence[Place]) -> list[ng.Annotation]:
    return [
        point(str(i), place.at_zyx_nm, place.text, place.colour, (place.segments, place.neurons))
        for i, place in enumerate(places)
    ]


def _world(size_zyx: Sizes) -> ng.CoordinateSpace:
    return ng.CoordinateSpace(names=["x", "y", "z"], units=["nm"] * 3, scales=size_zyx[::-1])


def _grey_layer(scene: Scene, source: Any) -> ng.Layer:
    shown = ng.InvlerpParameters(range=list(scene.range_of_raw()))
    return ng.ImageLayer(source=source, shader_controls={"normalized": shown}, opacity=1)


def _affinities_layer(scene: Scene, source: Any) -> ng.Layer:
    count = scene.volumes["affinities"].finest.shape[0]
    channels = [f"toNormalized(getDataValue({c}))" if c < count else "0.0" for c in range(3)]
    return ng.ImageLayer(source=source, shader=_AFFINITIES.format(channels=", ".join(channels)), opacity=1)


def _objects_layer(name: str, scene: Scene, source: Any) -> ng.Layer:
    colours = {np.uint64(number): colour for number, colour in scene.colours[name].items()}
    layer = ng.SegmentationLayer(source=source, segment_colors=colours)
    layer.selected_alpha, layer.not_selected_alpha = _OPACITY
    return layer


def _errors_layer(_: Scene, source: Any) -> ng.Layer:
    """Each kind of error in its colour, which a checkbox hides; what is right stays as it is."""
    controls = [f"#uicontrol bool {name} checkbox(default=true)" for name in _CODES]
    cases = [
        f"  if (code == {int(kind)}u && {name}) emitRGBA(vec4(vec3{colour} / 255.0, strength));"
        for name, (kind, colour) in _CODES.items()
    ]
    begin = ["#uicontrol float strength slider(min=0, max=1, default=0.75)", "void main() {"]
    code = ["  uint code = uint(toRaw(getDataValue()));", "  emitTransparent();"]
    shader = "\n".join((*controls, *begin, *code, *cases, "}\n"))
    return ng.ImageLayer(source=source, shader=shader, opacity=1)


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


_LAYERS: dict[str, Callable[[Scene, Any], ng.Layer]] = {
    "raw": _grey_layer,
    "affinities": _affinities_layer,
    "segmentation": functools.partial(_objects_layer, "segmentation"),
    "truth": functools.partial(_objects_layer, "truth"),
    ERRORS: _errors_layer,
}
