"""Exports labels, or the graph that they were made of, in the form of another tool."""

from collections.abc import Callable

from emsam_jax.exports.pychunkedgraph import export_to_pychunkedgraph
from emsam_jax.exports.webknossos import export_to_webknossos
from emsam_jax.segmentation.blockwise import open_segmented
from emsam_jax.volumes import open_volume
from emsam_jax.volumes.ingest import ingest


def export_labels(to: str, labels: str, out: str, *, progress: bool = False) -> str:
    """Writes the labels for the tool `to`, resuming what was stopped; returns a sentence of what was written."""
    return TARGETS[to](labels, out, progress)


def _to_webknossos(labels: str, out: str, progress: bool) -> str:
    return export_to_webknossos(open_segmented(labels), out, progress=progress)


def _to_pychunkedgraph(labels: str, out: str, progress: bool) -> str:
    return export_to_pychunkedgraph(open_segmented(labels), out, progress=progress)


def _to_ome_zarr_0_4(labels: str, out: str, progress: bool) -> str:
    volume = ingest(open_volume(labels), out, format="ome-zarr-0.4", pyramid="mode", progress=progress)
    return f"{volume.url}: {volume.shape} {volume.dtype}, in {len(volume.levels)} levels"


TARGETS: dict[str, Callable[[str, str, bool], str]] = {
    "webknossos": _to_webknossos,
    "pychunkedgraph": _to_pychunkedgraph,
    "ome-zarr-0.4": _to_ome_zarr_0_4,
}
