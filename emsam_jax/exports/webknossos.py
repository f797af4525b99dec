"""Exports a segmentation as a dataset for WEBKNOSSOS: a layer of fragments, and the agglomerates that they make up."""

import dataclasses
import json
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer, UInt64
from scipy.ndimage import find_objects

from emsam_jax.blocks import Block, Entry, RunLock, describe_failures, run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.exports.agglomerates import Agglomerates, write_agglomerates
from emsam_jax.exports.relabelled import Relabelled, number_pieces
from emsam_jax.segmentation.blockwise import EDGE, Segmented, Table, are_intact, index_ids, read_tables, write_table
from emsam_jax.storage import EXPORT, claim, normalise, open_folder, split_last, write_key
from emsam_jax.volumes import Volume, Voxel
from emsam_jax.volumes.ingest import ingest

LAYER = "fragments"
_PLACE = np.dtype([("piece", "<u8"), ("place", "<i4", 3)])  # a voxel z, y, x of the volume


def export_to_webknossos(segmented: Segmented, out: str, *, progress: bool = False) -> str:
    """Writes a dataset; returns a sentence of it. Voxels are copied shard by shard, tables are held in memory."""
    url, pad = normalise(out), first_voxel(segmented.open_fragments())
    claim(url, EXPORT, [segmented.labels, segmented.graph])
    with RunLock(f"{url}/ledger"):
        stage = PiecePlaces(segmented, url)
        report = run_in_turn(stage, segmented.plan, f"{url}/ledger", progress=progress)
        if report.failed:
            raise UserError(describe_failures(stage.name, report.failed))
        pieces = segmented.read_pieces()
        dtype = np.dtype(np.uint32 if len(pieces) < 1 << 32 else np.uint64)

        def rename(names: UInt64[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
            return number_pieces(pieces["fragment"], names)

        layer = ingest(Relabelled(segmented, rename, dtype, pad), f"{url}/{LAYER}", pyramid="mode", progress=progress)
        name = f"agglomerate_view_{segmented.recipe}"
        found = collect(segmented, pieces, pad, stage)
        write_agglomerates(f"{url}/{LAYER}/agglomerates/{name}", found, dtype)
        properties = describe_dataset(layer, pad, len(pieces), name, split_last(url)[1])
        write_key(open_folder(url), "datasource-properties.json", json.dumps(properties, indent=2).encode())
    objects = int(found.of_segments.max(initial=0))
    return f"{url}: {len(pieces)} segments in {objects} agglomerates, {len(found.edges)} edges"


@dataclasses.dataclass(frozen=True)
class PiecePlaces:
    """Finds a voxel of each piece, the one nearest to its middle."""

    segmented: Segmented
    out: str
    name: str = "places"

    def identity(self) -> dict[str, Any]:
        return self.segmented.facts()

    def run(self, block: Block) -> str:
        ids = np.ascontiguousarray(self.segmented.open_fragments().read(block.box), np.uint64)
        names, _, numbers = index_ids(ids)
        found = np.zeros(len(names), _PLACE)
        found["piece"] = names
        for row, box in zip(range(len(names)), find_objects(numbers, len(names)), strict=True):
            voxels = np.argwhere(numbers[box] == row + 1)
            nearest = ((voxels - voxels.mean(0)) ** 2).sum(1).argmin()
            found["place"][row] = voxels[nearest] + [side.start for side in box] + block.box.start
        return write_table(self.out, places_key(block), found)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.out, [places_key(block)], entry.checksum)


def places_key(block: Block) -> str:
    return f"places/{block.name}.npy"


def collect(segmented: Segmented, pieces: Table, pad: Voxel, stage: PiecePlaces) -> Agglomerates:
    """Collects what all blocks say of the pieces that belong to objects."""
    plan = segmented.plan
    tables = read_tables(stage.out, places_key, plan, _PLACE)
    places = np.concatenate([part[number_pieces(pieces["fragment"], part["piece"]) > 0] for part in tables])["place"]
    edges, affinities = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for block in plan:
        links, measured = segmented.read_links(block), segmented.read_edges(block)
        table = np.zeros(len(links) + len(measured), EDGE)
        for end in "uv":
            table[end] = np.concatenate([links[end], measured[end]])
        table["mean"] = np.concatenate([np.ones(len(links)), measured["mean"]])  # parts of one fragment
        _, first = np.unique(table[["u", "v"]], return_index=True)
        ends = np.stack([number_pieces(pieces["fragment"], table[end][first]) for end in "uv"], 1)
        own = np.concatenate([np.zeros(1, np.uint64), pieces["label"]])[ends]
        inside = (own[:, 0] == own[:, 1]) & (own[:, 0] > 0)
        edges.append(ends[inside])
        affinities.append(table["mean"][first][inside].astype(np.float32))
    return Agglomerates(
        pieces["label"].copy(), to_xyz(places + np.array(pad)), np.concatenate(edges), np.concatenate(affinities)
    )


def to_xyz(places: Integer[np.ndarray, "n 3"]) -> Int32[np.ndarray, "n 3"]:
    return places[:, ::-1].astype(np.int32)


def first_voxel(volume: Volume) -> Voxel:
    """Returns the volume's first voxel in the world, z, y, x: a dataset begins at 0."""
    sides = list(zip(volume.offset_zyx, volume.voxel_size_zyx, strict=True))
    z, y, x = (round(offset / size) for offset, size in sides)
    apart = [abs(at * size - offset) / size for at, (offset, size) in zip((z, y, x), sides, strict=True)]
    if min(z, y, x) < 0 or max(apart) > 1e-3:
        raise UserError(
            f"{volume.url}: a WEBKNOSSOS dataset wants an offset of whole voxels {volume.voxel_size_zyx} nm from 0, "
            f"found {volume.offset_zyx} nm (z, y, x); segment a volume of another offset."
        )
    return z, y, x


def describe_dataset(layer: Volume, first: Voxel, segments: int, agglomerates: str, name: str) -> dict[str, Any]:
    """Returns `datasource-properties.json`, in which axes are x, y, z."""
    z, y, x = (side - before for side, before in zip(layer.shape, first, strict=True))
    mags = []
    for level, size in enumerate(layer.levels):
        factor = [round(own / finest) for own, finest in zip(size, layer.voxel_size_zyx, strict=True)]
        order = {"x": 2, "y": 1, "z": 0}
        mags.append({"mag": factor[::-1], "path": f"./{LAYER}/{level}", "axisOrder": order})
    attachment = {"name": agglomerates, "path": f"./{LAYER}/agglomerates/{agglomerates}", "dataFormat": "zarr3"}
    described = {
        "name": LAYER,
        "category": "segmentation",
        "boundingBox": {"topLeft": list(first[::-1]), "width": x, "height": y, "depth": z},
        "dataFormat": "zarr3",
        "mags": mags,
        "largestSegmentId": segments,
        "numChannels": 1,
        "elementClass": layer.dtype.name,
        "attachments": {"agglomerates": [attachment]},
    }
    scale = {"factor": list(layer.voxel_size_zyx[::-1]), "unit": "nanometer"}
    return {"id": {"name": name, "team": ""}, "scale": scale, "dataLayers": [described], "version": 1}
