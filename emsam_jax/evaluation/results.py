"""Writes scores.json: every number, with what is needed to reproduce it."""

import dataclasses
import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from emsam_jax.blocks import hash_of
from emsam_jax.evaluation.compared import STORED, TITLES, title_of
from emsam_jax.evaluation.recipes import Frozen
from emsam_jax.evaluation.sources import AffinitySource, EvaluationRequest
from emsam_jax.evaluation.subject import Subject
from emsam_jax.storage import EVALUATION, LABELS, check_free, normalise, usable_cores
from emsam_jax.volumes import write_volume

SAVED = ("segmentation", "baseline")  # volumes of labels
PACKAGES = ("bioimage-cpp", "emsam-jax", "flax", "jax", "numpy", "waterz")
EXPLAINED = {
    "threshold": "merge where affinity > 1 - threshold; chosen on the validation volumes, or the literature's 0.5",
    "smoothed_voi": "VOI over neighbouring thresholds, in log odds: what methods and checkpoints are compared by",
    "fixed": "the literature's threshold 0.5, with the same fragments",
    "oracle": "the lowest VOI of the sweep, chosen by looking at the truth: no result, a bound",
    "decisions": "merge decisions: calibration of their probabilities, and VOI after an oracle has looked at the first",
    "runs": "expected run length (ERL) along skeletons in nm, the longest possible, their ratio; shares of the length",
    "ways": "all voxels; truth borders of 1 voxel ignored; without the largest object; away from the volume's faces",
}


def describe(
    request: EvaluationRequest, source: AffinitySource, subjects: Sequence[Subject], frozen: Frozen
) -> dict[str, Any]:
    """Returns scores.json without the scores."""
    model, asked = source.describe(), dataclasses.asdict(request)
    config = model.pop("config", None)
    titles = TITLES | {name: title_of(name) for name in frozen.recipes} | {STORED: model["title"]}
    title = request.title or f"{model['title']} on {', '.join(subject.name for subject in subjects)}"
    return {
        "title": title[0].upper() + title[1:],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "headline": frozen.headline,
        "how": frozen.how,
        "explained": EXPLAINED,
        "volumes": {},
        "titles": titles,
        "model": model,
        "data": {subject.name: subject.describe() for subject in subjects},
        "standings": request.standings or source.standings,
        "conventions": request.conventions.describe(),
        "recipes": {name: dataclasses.asdict(recipe) for name, recipe in frozen.recipes.items()},
        "validation": frozen.validation,
        "stages": {},
        "versions": versions(),
        "machine": machine(),
        "config_hash": hash_of(config or asked),
        "config": config or asked,
    }


def check_outputs(out: str, subjects: Sequence[Subject], given: Sequence[str]) -> list[str]:
    """Refuses what others put where results will lie, before anything is computed; returns what is read."""
    sources = list(filter(None, given))
    for subject in subjects:
        volumes = [subject.specimen.raw, subject.specimen.labels, subject.specimen.mask]
        sources += [volume.url for volume in volumes if volume is not None]
    for url in (labels_url(out, subject, name) for subject in subjects for name in SAVED):
        check_free(url, LABELS, sources)
    check_free(out, EVALUATION, sources)
    return sources


def save_labels(out: str, subject: Subject, name: str, labels: Integer[np.ndarray, "z y x"] | None) -> None:
    """Saves labels as OME-Zarr at the raw's place in the world, with the smallest type of id."""
    if labels is None:
        return
    dtype = np.uint32 if int(labels.max()) < 1 << 32 else np.uint64
    url, values = labels_url(out, subject, name), labels.astype(dtype)
    write_volume(url, values, subject.voxel_size_zyx, LABELS, offset_zyx=subject.offset_zyx)


def list_shown(out: str, subject: Subject, affinities: str) -> dict[str, str]:
    """Lists volumes for the viewer: paths within the results where they are part of them."""
    segmentation, _ = SAVED
    found = {"segmentation": normalise(labels_url(out, subject, segmentation)), "affinities": affinities}
    return {name: url.removeprefix(f"{normalise(out)}/") for name, url in found.items() if url}


def labels_url(out: str, subject: Subject, name: str) -> str:
    return f"{out}/{subject.folder}/{name}.zarr"


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.processor(), "cores": usable_cores()}


def format_table(scores: dict[str, Any]) -> str:
    """Formats a line a method for a terminal: the literature's threshold, the chosen one and the best."""
    lines = []
    for volume, methods in scores["volumes"].items():
        lines += ["", f"{volume}: VOI split + merge = sum (bits), adapted Rand error, at threshold"]
        cells = [["", "fixed", "chosen on validation" if scores["validation"] else "chosen: fixed", "oracle"]]
        for name, entry in methods.items():
            chosen = {key: entry[key] for key in ("threshold", "voi_split", "voi_merge", "voi", "arand")}
            rows = [entry.get("fixed"), chosen, entry.get("oracle")]
            cells.append([scores["titles"].get(name, name), *[_format_cell(row) for row in rows]])
        lines += _align(cells)
    return "\n".join(lines)


def _format_cell(row: dict[str, Any] | None) -> str:
    if row is None or row["voi"] is None:
        return "-"
    text = f"{row['voi_split']:.3f} + {row['voi_merge']:.3f} = {row['voi']:.3f}  {row['arand']:.3f}"
    return text if row["threshold"] is None else f"{text}  at {row['threshold']:.3g}"


def _align(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
