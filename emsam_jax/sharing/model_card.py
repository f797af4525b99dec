"""Writes the card of a model that travels, from its config and from what was measured; what is missing is said to be.

A card is Markdown behind the metadata that the Hugging Face hub reads.
"""

import dataclasses
import json
import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

from emsam_jax.config import describe_encoder
from emsam_jax.inference import Trained
from emsam_jax.segmentation import Recipe

_TAGS = ("electron-microscopy", "connectomics", "image-segmentation", "affinities", "jax")
_SCORES = {"voi_split": "VOI split", "voi_merge": "VOI merge", "voi": "VOI", "arand": "ARAND"}
_WAYS = {
    "all": "all voxels",
    "borders_ignored": "truth borders of 1 voxel ignored",
    "without_largest": "without the largest object",
    "interior": "away from the volume's faces",
}
_NOTHING = "Not said by who pushed it."


@dataclasses.dataclass(frozen=True)
class Said:
    """What only a person can say of a model; an empty field is said to be missing."""

    license: str = ""  # of the parameters, such as apache-2.0
    data: str = ""  # what the training volumes are, and where they come from
    data_license: str = ""
    about: str = ""  # what the model is for


def write_card(
    trained: Trained,
    name: str,
    *,
    parameters: dict[str, Any],
    recipe: Recipe | None,
    scores: Sequence[dict[str, Any]],
    said: Said,
) -> str:
    """Writes README.md of the model called `name`; `scores` are contents of scores.json, this run's first.

    Those after the first are of other seeds, and serve the intervals.
    """
    parts = [
        _front_matter(said),
        f"# {trained.name or name}",
        said.about
        or "Predicts affinities between voxels of electron-microscopy volumes; watershed and agglomeration "
        "turn them into neurons. Made with EMSAM-JAX.",
        f"## Use\n\n{_use(name)}",
        f"## What it was trained on\n\n{_training(trained, said)}",
        f"## Model\n\n{_model(trained, parameters, said)}",
        f"## From affinities to neurons\n\n{_recipe(recipe)}",
        f"## Scores\n\n{_scores(scores)}",
        f"## Reproducing the scores\n\n{_reproducing(name, scores)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(said: Said) -> str:
    licensed = [f"license: {json.dumps(said.license)}"] if said.license else []
    tags = [f"- {tag}" for tag in _TAGS]
    return "\n".join(("---", *licensed, "library_name: emsam-jax", "tags:", *tags, "---"))


def _use(name: str) -> str:
    shell = f"emsam segment --ckpt={shlex.quote(name)} --raw=em.zarr --out=neurons.zarr"
    python = f"import emsam_jax\n\nmodel = emsam_jax.load({json.dumps(name)})\nlabels = model.segment(array)  # z, y, x"
    return f"```bash\n{shell}\n```\n\n```python\n{python}\n```"


def _training(trained: Trained, said: Said) -> str:
    rows = [[part.name, part.raw.place, part.region] for part in trained.measured.parts]
    size = " x ".join(f"{side:g}" for side in trained.measured.voxel_size_zyx)
    ranges = ", ".join(f"{low:g} to {high:g}" for low, high in trained.measured.ranges) or "not measured"
    return "\n\n".join(
        (
            f"Data: {said.data or _NOTHING}",
            f"Licence of the data: {said.data_license or _NOTHING}",
            _table(["volume", "raw", "region (z, y, x)"], rows),
            f"Voxels: {size} nm (z, y, x). Grey values that became 0 and 1, of each volume: {ranges}. Volumes of other "
            "voxel sizes are refused, or read at the pyramid level that fits.",
        )
    )


def _model(trained: Trained, parameters: dict[str, Any], said: Said) -> str:
    config = trained.config
    rows = [
        ["parameters", f"{parameters['count']:,}: the running mean, stored as {parameters['dtype']}"],
        ["their licence", said.license or _NOTHING],
        ["image encoder", describe_encoder(config.model.encoder, config.init_from)],
        ["patch, voxels z, y, x", " x ".join(map(str, config.data.patch))],
        ["affinities, offsets z, y, x", ", ".join(map(str, config.model.offsets))],
        ["training", f"{trained.step:,} steps of {config.optim.batch} patches, seed {config.seed}"],
    ]
    return _table(["", ""], rows)


def _recipe(recipe: Recipe | None) -> str:
    if recipe is None:
        return "No recipe was chosen for this model: postprocess.json is missing, and thresholds are yours to choose."
    cut = f"{recipe.method}, threshold {recipe.threshold:g}"
    return f"By `postprocess.json`: {cut} (merge where affinity > 1 - threshold)."


def _scores(scores: Sequence[dict[str, Any]]) -> str:
    if not scores:
        return "None were measured: no scores.json was pushed with this model."
    own = scores[0]
    overlaps = "; ".join(own["overlaps"]) or "none"
    parts = [
        f"{own['how']} VOI in bits and adapted Rand error (ARAND), lower is better; truth label 0 is ignored. The "
        "oracle is the lowest VOI of the sweep, chosen by looking at the truth: no result, a bound.",
        f"Voxels that training, validation and test share: {overlaps}.",
    ]
    for volume, methods in own["volumes"].items():
        about = own["data"][volume]
        parts.append(f"### {volume}, {about['roi']} (z, y, x), {about['labelled_voxels']:,} labelled voxels")
        parts.append(_methods(own, methods))
        parts.append(f"{own['headline']}, counted in four ways, with 95% bootstrap intervals over objects:")
        parts.append(_ways([methods[own["headline"]]]))
        others = [one["volumes"][volume][one["headline"]] for one in scores if volume in one["volumes"]]
        if len(others) > 1:
            parts.append(f"Means of {len(others)} seeds, with 95% intervals (Student's t); this model is one of them:")
            parts.append(_ways(others))
    versions = ", ".join(f"{package} {version}" for package, version in own["versions"].items())
    parts.append(f"Measured on {own['date'][:10]} with {versions}; {own['machine']['cpu']}.")
    return "\n\n".join(parts)


def _methods(own: dict[str, Any], methods: dict[str, Any]) -> str:
    rows = []
    for name, entry in methods.items():
        title = own["titles"].get(name, name)
        found = [_number(entry[score]) for score in _SCORES]
        fixed, oracle = (_number((entry.get(row) or {}).get("voi")) for row in ("fixed", "oracle"))
        shown = f"**{title}**" if name == own["headline"] else title
        rows.append([shown, _number(entry["threshold"]), *found, fixed, oracle])
    return _table(["method", "threshold", *_SCORES.values(), "VOI at 0.5", "oracle VOI"], rows)


def _ways(entries: Sequence[dict[str, Any]]) -> str:
    """Of one run with its own intervals, or of several with those of their mean."""
    rows = []
    for way, told in _WAYS.items():
        cells = []
        for score in _SCORES:
            values = [entry["ways"][way][score] for entry in entries]
            bounds = entries[0]["ways"][way]["intervals_95"].get(score)
            if len(values) > 1 and None not in values:
                half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
                values = [statistics.fmean(values)]
                bounds = (values[0] - half, values[0] + half)
            interval = f" ({_number(bounds[0])} to {_number(bounds[1])})" if bounds else ""
            cells.append(f"{_number(values[0])}{interval}")
        rows.append([told, *cells])
    return _table(["voxels that count", *_SCORES.values()], rows)


def _reproducing(name: str, scores: Sequence[dict[str, Any]]) -> str:
    if not scores:
        return "There are no scores to reproduce."
    commands = []
    for volume, about in scores[0]["data"].items():
        given = {
            "ckpt": name,
            "name": volume,
            "raw": about["raw"],
            "labels": about["labels"],
            "mask": about.get("mask"),
            "roi": about["roi"],
            "voxel_size": ",".join(f"{side:g}" for side in about["voxel_size_zyx"]),
            "background": ",".join(map(str, about["background"])),
            "unlabelled": ",".join(map(str, about["unlabelled"])),
        }
        flags = [f"--{flag}={shlex.quote(value)}" for flag, value in given.items() if value]
        commands.append(" \\\n    ".join(("emsam eval", *flags)))
    return "With the volumes at these places:\n\n```bash\n" + "\n".join(commands) + "\n```"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', ' ') for cell in line)} |" for line in lines)
