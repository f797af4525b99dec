"""Scenes of what emsam eval and emsam segment left: their volumes, the worst objects, the least certain merges."""

import csv
from collections.abc import Iterator, Mapping
from typing import Any

from emsam_jax.blocks import read_facts
from emsam_jax.config import LabelRules
from emsam_jax.errors import UserError
from emsam_jax.storage import Field, is_remote, normalise, open_folder, read_key
from emsam_jax.view.colours import MERGE, SPLIT, UNSEGMENTED
from emsam_jax.view.live.scene import Place, Scene, centre_of
from emsam_jax.view.live.served import Levels, open_levels
from emsam_jax.volumes import Volume, open_volume

WORST, UNCERTAIN = "worst objects", "uncertain merges"  # layers
_WORST, _SHOWN = 10, 200  # objects, as many as the report draws, and rows of the queue
_QUEUE = ("z_nm", "y_nm", "x_nm", "object_a", "object_b", "joined", "probability", "voxels")


def scene_of(out: str, name: str = "") -> Scene:
    """What lies at `out`: results of emsam eval, of the named volume or the first, or labels of emsam segment."""
    out = normalise(out)
    content = read_key(open_folder(out), "scores.json")
    if content is not None:
        return _of_evaluation(out, content, name)
    if read_facts(f"{out}/ledger", "labels") is None:
        raise UserError(
            f"{out}: expected results of emsam eval (scores.json) or labels of emsam segment, found neither; `emsam "
            "eval --ckpt=RUN` leaves its own in RUN/eval, and other volumes are shown by --raw, --labels, --affinities "
            "and --truth."
        )
    return _of_segmentation(out)


def _of_evaluation(out: str, content: bytes, name: str) -> Scene:
    try:
        scores = Field.parse(content, f"{out}/scores.json").value
        names = list(scores["data"])
        if name and name not in names:
            raise UserError(f"--volume: expected one of {', '.join(names)}, which {out} judged, found {name!r}.")
        chosen = name or names[0]
        facts, entry = scores["data"][chosen], scores["volumes"][chosen][scores["headline"]]
        paths = {role: _place(out, path) for role, path in facts["shown"].items()}
        notes: list[str] = []
        raw = _raw(notes, facts["raw"], facts["voxel_size_zyx"], facts["raw_offset_zyx"])
        segmentation = open_levels(paths["segmentation"], averaged=False)
        size, offset = facts["labels_voxel_size_zyx"], facts["labels_offset_zyx"]
        truth = open_levels(facts["labels"], averaged=False, voxel_size_zyx=size, offset_zyx=offset)
        worst = _worst(entry["worst"], segmentation.finest)
        low, high = facts["intensity"]
        if len(names) > 1:
            notes.append(f"Also judged: {', '.join(each for each in names if each != chosen)} (--volume=NAME).")
        return Scene(
            title=f"{chosen}: {scores['titles'].get(scores['headline'], scores['headline'])}",
            raw=raw,
            affinities=_affinities(notes, paths.get("affinities", "")),
            segmentation=segmentation,
            truth=truth,
            mask=open_volume(facts["mask"]) if "mask" in facts else None,
            rules=LabelRules(tuple(facts["background"]), tuple(facts["unlabelled"])),
            intensity=(high, low) if facts["inverted"] else (low, high),
            places=_named({WORST: worst, UNCERTAIN: _queue(paths["segmentation"])}),
            sections=max(1, 4 - len(names)),
            notes=tuple(notes),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{out}/scores.json: expected what this version of emsam eval writes, found none of {error}; call it again "
            "(it resumes)."
        ) from None


def _of_segmentation(out: str) -> Scene:
    notes: list[str] = []
    labels = read_facts(f"{out}/ledger", "labels")
    affinities = labels.text("affinities") if labels else ""
    predicted = read_facts(f"{affinities}/ledger", "predict")
    shown = _affinities(notes, affinities)
    raw, intensity = None, None
    if predicted:
        low, high = predicted["input_range"]
        intensity = (high, low) if predicted.flag("input_inverted") else (low, high)
        raw = _raw(notes, predicted.text("input"), open_volume(affinities, channel="all").voxel_size_zyx)
    else:
        notes.append("These labels were made from stored affinities; --raw shows the raw volume with them.")
    return Scene(
        title=out.rpartition("/")[2],
        raw=raw,
        affinities=shown,
        segmentation=open_levels(out, averaged=False),
        intensity=intensity,
        places=_named({UNCERTAIN: _queue(out)}),
        notes=tuple(notes),
    )


def _raw(notes: list[str], url: str, size: Any, offset: Any = None) -> Levels | None:
    """The raw volume; without it the rest is still worth a look."""
    try:
        return open_levels(url, averaged=True, voxel_size_zyx=size, offset_zyx=offset)
    except UserError as problem:
        notes.append(f"The raw volume is not shown (--raw names another): {problem}")
        return None


def _affinities(notes: list[str], url: str) -> Levels | None:
    if not url:
        return None
    try:
        levels = open_levels(url, averaged=True, channel="all")
    except UserError as problem:
        notes.append(f"The affinities are not shown: {problem}")
        return None
    if levels.finest.is_written(levels.finest.box):
        return levels
    notes.append("The affinities were deleted (--nokeep_affinities) and are not shown.")
    return None


def _place(out: str, path: str) -> str:
    return path if is_remote(path) or path.startswith("/") else f"{out}/{path}"


def _named(places: Mapping[str, tuple[Place, ...]]) -> dict[str, tuple[Place, ...]]:
    return {name: found for name, found in places.items() if found}


def _worst(worst: Mapping[str, Any], judged: Volume) -> tuple[Place, ...]:
    """Split neurons and merging segments together, by the bits that they cost, in voxels of what was judged."""
    rows = [(kind, row) for kind in ("splits", "merges") for row in worst[kind] if "at_zyx" in row]
    rows.sort(key=lambda pair: -pair[1]["bits"])
    return tuple(_worst_place(kind, row, judged) for kind, row in rows[:_WORST])


def _worst_place(kind: str, row: Mapping[str, Any], judged: Volume) -> Place:
    own, others = (row["id"],), tuple(piece["id"] for piece in row["largest_pieces"] if piece["id"])
    at = centre_of(judged, row["at_zyx"])
    if kind == "splits":
        text = f"{row['bits']:.3f} bits: neuron {row['id']} in {row['pieces']} pieces"
        return Place(at, text, SPLIT, segments=others, neurons=own)
    text = f"{row['bits']:.3f} bits: segment {row['id']} of {row['pieces']} neurons"
    return Place(at, text, MERGE, segments=own, neurons=others)


def _queue(labels: str) -> tuple[Place, ...]:
    """Rows of queue.csv, where there is one below the labels: the decisions whose mistakes would cost most."""
    content = read_key(open_folder(labels), "queue.csv")
    if content is None:
        return ()
    try:
        return tuple(place for place, _ in zip(_rows(content.decode()), range(_SHOWN), strict=False))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{labels}/queue.csv: expected the columns {', '.join(_QUEUE)} of numbers, found a row without: {error}."
        ) from None


def _rows(text: str) -> Iterator[Place]:
    for row in csv.DictReader(text.splitlines()):
        z, y, x = (float(row[name]) for name in _QUEUE[:3])
        a, b = int(row["object_a"]), int(row["object_b"])
        decided = "joined" if int(row["joined"]) else "apart"
        told = f"{float(row['probability']):.0%} one, {decided}: {f'{a} and {b}' if a != b else f'in {a}'}"
        yield Place((z, y, x), f"{told}, {int(row['voxels'])} voxels", UNSEGMENTED, tuple({a, b}))
