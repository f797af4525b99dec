"""Draws the objects that cost most."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from emsam_jax.view.colours import MAIN, PIECES, REST, UNSEGMENTED
from emsam_jax.view.exhibit import Exhibit
from emsam_jax.view.images import Picture, blend, draw_surface, encode, grey_rgb, sharply, smoothly, to_bytes
from emsam_jax.view.panels import outlines, stretched

TOLD = 1 + len(PIECES)  # pieces in colours of their own; the rest share one
_SIDE = 360  # pixels
_WINDOW = 180  # voxels of a section around the place


@dataclasses.dataclass(frozen=True)
class WorstObject:
    kind: str  # splits or merges
    name: str
    bits: float  # of the VOI
    voxels: int
    place: str  # in voxels of the raw
    text: str
    shape: Picture
    section: Picture


def draw_worst(exhibit: Exhibit, count: int = 10) -> list[WorstObject]:
    """Draws split neurons and merging segments together, by the bits that they cost."""
    rows = [(kind, row) for kind in ("splits", "merges") for row in exhibit.worst[kind] if "at_zyx" in row]
    rows.sort(key=lambda pair: -pair[1]["bits"])
    return [_draw(exhibit, kind, row) for kind, row in rows[:count]]


def _draw(exhibit: Exhibit, kind: str, row: dict[str, Any]) -> WorstObject:
    whole, parts = (exhibit.truth, exhibit.labels) if kind == "splits" else (exhibit.labels, exhibit.truth)
    box = tuple(slice(start, stop) for start, stop in row["box_zyx"])
    judged = exhibit.labelled[box] & (exhibit.truth[box] > 0)
    ranks, ids, sizes = _rank(parts[box], (whole[box] == row["id"]) & judged)
    colours = _colours(ids)
    z, y, x = _telling_place(ranks)
    place = [at + side.start for at, side in zip((z, y, x), box, strict=True)]
    told = ", ".join(f"{axis} {at + start}" for axis, at, start in zip("zyx", place, exhibit.start_zyx, strict=True))
    name = _name(kind == "splits", row["id"])
    text = _tell(kind, ids, sizes)
    surface = draw_surface(ranks, colours, exhibit.voxel_size_zyx, _SIDE)
    return WorstObject(
        kind,
        name,
        row["bits"],
        row["voxels"],
        told,
        text,
        encode(surface, f"{name} in space: {text}"),
        encode(_draw_section(exhibit, ranks, colours, box, (z, y, x)), f"{name} in the section at {told}"),
    )


def _rank(
    parts: Integer[np.ndarray, "z y x"], inside: Bool[np.ndarray, "z y x"]
) -> tuple[UInt8[np.ndarray, "z y x"], list[int], list[int]]:
    """Ranks pieces from 1, the largest, to one rank for all the rest; 0 outside. Returns their ids and sizes too."""
    ids, inverse, counts = np.unique(parts[inside], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank_of = np.empty(ids.size, np.uint8)
    rank_of[order] = np.minimum(np.arange(1, ids.size + 1), TOLD + 1)
    ranks = np.zeros(parts.shape, np.uint8)
    ranks[inside] = rank_of[inverse]
    return ranks, [int(i) for i in ids[order]], [int(n) for n in counts[order]]


def _colours(ids: list[int]) -> UInt8[np.ndarray, "n 3"]:
    """Returns colours by rank: the main piece is pale, so that the others stand out; background has its own."""
    colours = [(0, 0, 0), MAIN, *PIECES, REST]
    for rank, piece in enumerate(ids[:TOLD], 1):
        if piece == 0:
            colours[rank] = UNSEGMENTED
    return np.array(colours, np.uint8)


def _telling_place(ranks: UInt8[np.ndarray, "z y x"]) -> tuple[int, int, int]:
    """Finds the section that shows most of the lesser pieces: one of their voxels nearest to their middle."""
    lesser = ranks > 1 if (ranks > 1).any() else ranks > 0
    z = int(lesser.sum((1, 2)).argmax())
    places = np.argwhere(lesser[z])
    y, x = places[np.abs(places - places.mean(0)).sum(1).argmin()]
    return z, int(y), int(x)


def _draw_section(
    exhibit: Exhibit,
    ranks: UInt8[np.ndarray, "z y x"],
    colours: UInt8[np.ndarray, "n 3"],
    box: tuple[slice, ...],
    at: tuple[int, int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """Draws a window of the section around the place, the object in the colours of its pieces."""
    z = at[0] + box[0].start
    window = []
    for centre, side, size in zip(at[1:], box[1:], exhibit.raw.shape[1:], strict=True):
        start = min(max(0, centre + side.start - _WINDOW // 2), max(0, size - _WINDOW))
        window.append(slice(start, min(start + _WINDOW, size)))
    section = np.zeros(exhibit.raw.shape[1:], np.uint8)
    section[box[1:]] = ranks[at[0]]
    section = section[tuple(window)]
    scale = _SIDE / max(section.shape)
    height, width = (round(size * scale) for size in section.shape)
    grey = grey_rgb(smoothly(to_bytes(stretched(exhibit.raw[(z, *window)])), width, height))
    shown = sharply(section, width, height)
    pixels = blend(grey, colours[shown], np.where(shown > 0, np.float32(0.6), np.float32(0)))
    return blend(pixels, np.zeros_like(pixels), 0.6 * outlines(shown).astype(np.float32))


def _name(is_neuron: bool, number: int) -> str:
    return f"neuron {number}" if is_neuron else f"segment {number}" if number else "what is unsegmented"


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else "<1%"


def _tell(kind: str, ids: list[int], sizes: list[int]) -> str:
    """Lists the largest pieces with their shares."""
    split = kind == "splits"
    total = sum(sizes)
    named = ", ".join(
        f"{_share(size / total)} {'in' if split else 'of'} {_name(not split, piece)}"
        for piece, size in zip(ids[:3], sizes[:3], strict=True)
    )
    lead = f"in {len(ids)} pieces" if split else f"holds {len(ids)} neurons"
    return f"{lead}: {named}"
