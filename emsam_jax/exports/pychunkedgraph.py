"""Exports a segmentation as what PyChunkedGraph's ingest reads: supervoxels, and edges and components by chunk.

A chunk is a block of the segmentation, and a piece of a fragment a supervoxel. Pieces that are one fragment are joined
by cross-chunk edges, which cannot be cut.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import zstandard
from jaxtyping import UInt64

from emsam_jax.blocks import Block, Entry, Plan, RunLock, describe_failures, run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.exports.relabelled import Relabelled, number_pieces
from emsam_jax.segmentation.blockwise import EDGE, Segmented, Table, are_intact, find_rows, write_file
from emsam_jax.storage import EXPORT, claim, is_remote, normalise, open_folder, write_key
from emsam_jax.volumes.ingest import ingest

_LAYER_BITS, _SUPERVOXELS, _SPATIAL_BITS = 8, 1, 10  # bits of an id's layer, the layer of supervoxels, usual bits
_KINDS = {"in_chunk": 1, "cross_chunk": 2, "between_chunk": 3}  # fields of the message of a chunk
_LENGTH_DELIMITED = 2  # protobuf's wire type
_SHIFTS = np.arange(0, 64, 7, dtype=np.uint64)  # of the groups of seven bits in a number


def export_to_pychunkedgraph(segmented: Segmented, out: str, *, progress: bool = False) -> str:
    """Writes watershed, edges, components and a config of an ingest; returns a sentence of them."""
    url, ids = normalise(out), SupervoxelIds.of(segmented)
    claim(url, EXPORT, [segmented.labels, segmented.graph])
    with RunLock(f"{url}/ledger"):
        stage = Chunks(segmented, url)
        report = run_in_turn(stage, segmented.plan, f"{url}/ledger", progress=progress)
        if report.failed:
            raise UserError(describe_failures(stage.name, report.failed))
        pieces = segmented.read_pieces()["fragment"]

        def rename(names: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
            return np.where(number_pieces(pieces, names) > 0, ids.of_pieces(names), np.uint64(0))

        source = Relabelled(segmented, rename, np.uint64)
        ingest(source, f"{url}/watershed", format="precomputed", pyramid="mode", progress=progress)
        write_key(open_folder(url), "ingest.yml", describe_ingest(url, segmented.plan, ids).encode())
    return f"{url}: {len(pieces)} supervoxels in {len(segmented.plan)} chunks; ingest.yml names them to its ingest"


class SupervoxelIds(NamedTuple):
    """Ids of layer 1: layer, chunk x, y, z, and a number within the chunk, from the highest bits to the lowest."""

    segmented: Segmented
    bits: int  # of each of x, y and z

    @classmethod
    def of(cls, segmented: Segmented) -> "SupervoxelIds":
        bits = max(_SPATIAL_BITS, (max(segmented.plan.counts) - 1).bit_length())
        if math.prod(segmented.plan.block) >= 1 << (64 - _LAYER_BITS - 3 * bits):
            raise UserError(
                f"{segmented.labels}: ids of 64 bits hold no numbers for blocks of {segmented.plan.block} voxels, "
                f"{segmented.plan.counts} of them (z, y, x); segment in blocks of another size."
            )
        return cls(segmented, bits)

    def of_pieces(self, pieces: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        plan, number = self.segmented.plan, self.segmented.number_of(pieces)
        z, y, x = (place.astype(np.uint64) for place in np.unravel_index(number, plan.counts))
        chunk = np.full(len(pieces), _SUPERVOXELS, np.uint64)
        for place in (x, y, z):
            chunk = (chunk << np.uint64(self.bits)) | place
        within = pieces - number.astype(np.uint64) * np.uint64(math.prod(plan.block))
        return (chunk << np.uint64(64 - _LAYER_BITS - 3 * self.bits)) | within


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Writes the edges of a chunk, those to its neighbours included, and the components that its pieces belong to."""

    segmented: Segmented
    out: str
    name: str = "chunks"

    def identity(self) -> dict[str, Any]:
        return self.segmented.facts()

    def run(self, block: Block) -> str:
        measured, links = self._read(block)
        pieces = self.segmented.list_pieces(block)
        known = np.unique(np.concatenate([pieces, *(table[end] for table in (measured, links) for end in "uv")]))
        objects = self.segmented.find_objects(known)
        ids = SupervoxelIds.of(self.segmented)
        # Pieces of no object are background.
        kept = [
            table[np.all([objects[find_rows(known, table[end], "Edges")] > 0 for end in "uv"], axis=0)]
            for table in (measured, links)
        ]
        edges = encode_edges(dict(self._sort(block, *kept)), ids)
        inside = objects > 0
        components = encode_components(ids.of_pieces(known[inside]), objects[inside])
        contents = zstandard.compress(edges), components
        keys = chunk_keys(block)
        return ",".join(write_file(self.out, key, content) for key, content in zip(keys, contents, strict=True))

    def _read(self, block: Block) -> tuple[Table, Table]:
        """Reads edges and links with an end in the block: its own, and those of the next block along each axis."""
        plan, tables = self.segmented.plan, [(self.segmented.read_edges(block), self.segmented.read_links(block))]
        number = np.ravel_multi_index(block.index, plan.counts)
        for axis in range(3):
            z, y, x = (place + (axis == other) for other, place in enumerate(block.index))
            if plan.has((z, y, x)):
                after = plan.at((z, y, x))
                tables.append((self.segmented.read_edges(after), self.segmented.read_links(after)))
        measured, links = (np.concatenate(parts) for parts in zip(*tables, strict=True))
        joined = np.zeros(len(links), EDGE)
        joined["u"], joined["v"], joined["mean"], joined["size"] = links["u"], links["v"], np.inf, 1
        is_link = np.isin(measured[["u", "v"]], links[["u", "v"]])
        here = [
            np.any([self.segmented.number_of(table[end]) == number for end in "uv"], axis=0)
            for table in (measured, joined)
        ]
        return measured[here[0] & ~is_link], joined[here[1]]

    def _sort(self, block: Block, measured: Table, links: Table) -> Iterator[tuple[str, Table]]:
        """Yields each kind of edges; the chunk's own end comes first."""
        number = np.ravel_multi_index(block.index, self.segmented.plan.counts)

        def turned(table: Table) -> Table:
            table, swap = table.copy(), self.segmented.number_of(table["u"]) != number
            table["u"][swap], table["v"][swap] = table["v"][swap], table["u"][swap]
            return table

        ends = (self.segmented.number_of(measured[end]) == number for end in "uv")
        inside = np.all(list(ends), axis=0)
        yield "in_chunk", measured[inside]
        yield "between_chunk", turned(measured[~inside])
        yield "cross_chunk", turned(links)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.out, chunk_keys(block), entry.checksum)


def chunk_keys(block: Block) -> tuple[str, str]:
    """Returns where edges and components lie, named by the chunk's place x, y, z."""
    place = "_".join(map(str, reversed(block.index)))
    return f"edges/edges_{place}.proto.zst", f"components/components_{place}.proto"


def encode_edges(edges: dict[str, Table], ids: SupervoxelIds) -> bytes:
    """Encodes a chunk's message: affinities as sums over the voxel faces of a contact, areas as their number."""
    message = b""
    for kind, table in edges.items():
        arrays = (
            ids.of_pieces(table["u"]).astype("<u8"),
            ids.of_pieces(table["v"]).astype("<u8"),
            (table["mean"] * table["size"]).astype("<f4"),
            table["size"].astype("<u8"),
        )
        part = b"".join(_field(number, array.tobytes()) for number, array in enumerate(arrays, 1))
        message += _field(_KINDS[kind], part)
    return message


def encode_components(ids: UInt64[np.ndarray, " n"], objects: UInt64[np.ndarray, " n"]) -> bytes:
    """Encodes a chunk's message of numbers: of each object the count of its supervoxels, and these."""
    order = np.argsort(objects, kind="stable")
    _, starts, counts = np.unique(objects[order], return_index=True, return_counts=True)
    return _field(1, _varints(np.insert(ids[order], starts, counts.astype(np.uint64))))


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of bytes, an embedded message or packed numbers."""
    head = np.array([number << 3 | _LENGTH_DELIMITED, len(content)], np.uint64)
    return _varints(head) + content


def _varints(values: UInt64[np.ndarray, " n"]) -> bytes:
    """Encodes numbers by seven bits a byte, the lowest first; the highest bit tells that more follow."""
    groups = (values[:, None] >> _SHIFTS & np.uint64(0x7F)).astype(np.uint8)
    used = np.logical_or.accumulate(groups[:, ::-1] > 0, axis=1)[:, ::-1]
    used[:, 0] = True
    groups[:, :-1] |= used[:, 1:].astype(np.uint8) << 7
    return groups[used].tobytes()


def describe_ingest(url: str, plan: Plan, ids: SupervoxelIds) -> str:
    """Returns the config of an ingest; its owner adds the backend."""
    place = url if is_remote(url) else f"file://{url}"
    z, y, x = plan.block
    return f"""data_source:
  EDGES: "{place}/edges"
  COMPONENTS: "{place}/components"
  WATERSHED: "precomputed://{place}/watershed"
graph_config:
  CHUNK_SIZE: [{x}, {y}, {z}]
  FANOUT: 2
  LAYER_ID_BITS: {_LAYER_BITS}
  SPATIAL_BITS: {ids.bits}
"""
