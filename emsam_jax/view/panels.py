"""Draws a section in five panels: raw, affinities, segmentation, truth, errors."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from emsam_jax.view.colours import BOTH, MERGE, SPLIT, UNSEGMENTED, Colouring
from emsam_jax.view.exhibit import Exhibit, Pairing, Verdict
from emsam_jax.view.images import Picture, blend, encode, grey_rgb, sharply, smoothly, to_bytes

SHOWN = 1280  # voxels of a section at most, from its middle
_SIDE = (480, 640)  # pixels of a panel's longer side, at least and at most
_INK = {Verdict.SPLIT: SPLIT, Verdict.MERGE: MERGE, Verdict.BOTH: BOTH, Verdict.UNSEGMENTED: UNSEGMENTED}
Grey = UInt8[np.ndarray, "y x"]
Rgb = UInt8[np.ndarray, "y x 3"]


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    picture: Picture


@dataclasses.dataclass(frozen=True)
class Section:
    title: str
    panels: list[Panel]
    shares: dict[str, float]  # of the judged voxels of the whole section, by verdict


def draw_sections(exhibit: Exhibit, pairing: Pairing, count: int = 3) -> list[Section]:
    """Draws sections evenly spread: neither the best nor the worst are searched for."""
    chosen = choose_sections(len(exhibit.raw), count)
    segments = [pairing.matched(exhibit.labels[z]) for z in chosen]
    colouring = Colouring([exhibit.truth[z] for z in chosen] + segments)
    return [_draw(exhibit, pairing, colouring, z) for z in chosen]


def choose_sections(depth: int, count: int) -> list[int]:
    return [depth * (2 * i + 1) // (2 * count) for i in range(count)] if depth >= count else list(range(depth))


def _draw(exhibit: Exhibit, pairing: Pairing, colouring: Colouring, z: int) -> Section:
    verdict = pairing.judge(exhibit.labels[z], exhibit.truth[z], exhibit.labelled[z])
    shares = {kind.name.lower(): float((verdict == kind).mean()) for kind in Verdict}
    part = _middle(exhibit.raw.shape[1:])
    labels, truth = pairing.matched(exhibit.labels[z][part]), exhibit.truth[z][part]
    height, width = _size(labels.shape)
    grey = smoothly(to_bytes(stretched(exhibit.raw[z][part])), width, height)
    number = z + exhibit.start_zyx[0]
    at = f"section z {number}"
    panels = {"raw": (grey, f"Grey values of {at}")}
    if exhibit.affinities is not None:
        rgb = np.moveaxis(to_bytes(exhibit.affinities[(slice(0, 3), z, *part)]), 0, -1)
        panels["affinities"] = smoothly(rgb, width, height), f"Affinities in {at}: z red, y green, x blue"
    panels["segmentation"] = overlay(grey, labels, colouring), f"Segmentation of {at}, a colour for each segment"
    panels["truth"] = overlay(grey, truth, colouring), f"True neurons in {at}, in the colours of their main segments"
    panels["errors"] = overlay_errors(grey, verdict[part], truth), f"Errors in {at}: {tell(shares)}"
    title = f"z {number}"
    if labels.shape != exhibit.raw.shape[1:]:
        y, x = (side.start + start for side, start in zip(part, exhibit.start_zyx[1:], strict=True))
        title += f", {labels.shape[0]} x {labels.shape[1]} voxels from y {y} and x {x}"
    drawn = [Panel(name, encode(pixels, alt)) for name, (pixels, alt) in panels.items()]
    return Section(title, drawn, shares)


def overlay(grey: Grey, ids: Integer[np.ndarray, "_ _"], colouring: Colouring, share: float = 0.6) -> Rgb:
    """Draws objects in their colours over the grey values, outlined; 0 stays grey."""
    shown = sharply(ids, grey.shape[1], grey.shape[0])
    light = np.where(shown > 0, grey // 2 + 96, grey).astype(np.uint8)  # dark organelles would change the colours
    coloured = blend(grey_rgb(light), colouring(shown), np.where(shown > 0, np.float32(share), np.float32(0)))
    return blend(coloured, np.zeros_like(coloured), 0.65 * outlines(shown).astype(np.float32))


def overlay_errors(grey: Grey, verdict: UInt8[np.ndarray, "_ _"], truth: Integer[np.ndarray, "_ _"]) -> Rgb:
    """Draws errors in colour; what is right stays grey, with faint outlines of the truth."""
    height, width = grey.shape
    shown, objects = sharply(verdict, width, height), sharply(truth, width, height)
    pixels = grey_rgb(grey // 3 * 2 + 60)
    pixels = blend(pixels, np.zeros_like(pixels), 0.35 * outlines(objects).astype(np.float32))
    for kind, colour in _INK.items():
        ink = np.full_like(pixels, 0) + np.array(colour, np.uint8)
        pixels = blend(pixels, ink, np.where(shown == kind, np.float32(0.72), np.float32(0)))
    return pixels


def outlines(ids: Integer[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Returns the pixels whose right or lower neighbour is another object."""
    border = np.zeros(ids.shape, bool)
    border[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    border[:-1] |= ids[1:] != ids[:-1]
    return border


def stretched(grey: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Stretches grey values from the darkest to the brightest percentile."""
    low, high = np.percentile(grey, (0.5, 99.5))
    return (grey - low) / max(float(high - low), 1e-6)


def tell(shares: dict[str, float]) -> str:
    """Describes the verdicts on a section in words."""
    names = {"split": "cut off", "merge": "joined wrongly"}
    return ", ".join(f"{share:.1%} {names.get(key, key)}" for key, share in shares.items() if share >= 0.0005)


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [max(0, side - SHOWN) // 2 for side in shape]
    return tuple(slice(start, start + min(side, SHOWN)) for start, side in zip(starts, shape, strict=True))


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the size of a panel: small sections are enlarged by whole steps, large ones reduced."""
    longest = max(shape)
    scale = max(1, round(_SIDE[0] / longest)) if longest < _SIDE[1] else _SIDE[1] / longest
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
