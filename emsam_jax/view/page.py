"""The report: one page without outside requests, with all that scores.json holds and the pictures."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from emsam_jax.view.colours import BOTH, MERGE, SPLIT, UNSEGMENTED
from emsam_jax.view.curves import COLOURS, draw_curves, draw_decisions
from emsam_jax.view.exhibit import Exhibit, pair
from emsam_jax.view.panels import Section, draw_sections, tell
from emsam_jax.view.standings import Standings, find_standings
from emsam_jax.view.worst_drawn import WorstObject, draw_worst

_TEMPLATES = Path(__file__).parent / "templates"
_SCORES = ("voi_split", "voi_merge", "voi", "arand")
_INK = {"split": SPLIT, "merge": MERGE, "both": BOTH, "unsegmented": UNSEGMENTED}
_WAYS = {
    "all": "all voxels",
    "borders_ignored": "borders of the truth ignored, 1 voxel on each side",
    "without_largest": "without the largest object",
    "interior": "away from the volume's faces",
}


@dataclasses.dataclass(frozen=True)
class Illustrations:
    sections: list[Section]
    worst: list[WorstObject]


def illustrate(exhibit: Exhibit, sections: int = 3, worst: int = 10) -> Illustrations:
    pairing = pair(exhibit.labels, exhibit.truth, exhibit.labelled)
    return Illustrations(draw_sections(exhibit, pairing, sections), draw_worst(exhibit, worst))


def render(scores: Mapping[str, Any], illustrations: Mapping[str, Illustrations]) -> str:
    """Renders the page as HTML. `scores` is what scores.json holds; a volume may lack pictures."""
    standings = find_standings(scores["standings"])
    volumes = [_values_of(scores, name, standings, illustrations.get(name)) for name in scores["volumes"]]
    scored = [volume["entry"] for volume in volumes if volume["entry"]["voi"] is not None]
    template = _environment().get_template("report.html")
    return template.render(
        scores=scores,
        standings=standings,
        volumes=volumes,
        mean=scored and {key: sum(entry[key] for entry in scored) / len(scored) for key in _SCORES},
        facts=list(_facts(scores)),
        config=json.dumps(scores["config"], indent=2, default=str),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """Escapes every value that is no Markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"colours": COLOURS, "ink": _INK, "tell": tell, "ways": _WAYS}
    return environment


def _values_of(
    scores: Mapping[str, Any], name: str, standings: Standings | None, pictures: Illustrations | None
) -> dict[str, Any]:
    """What the template shows of one volume."""
    entries, headline, facts = scores["volumes"][name], scores["headline"], scores["data"][name]
    methods = [(scores["titles"].get(method, method), entry) for method, entry in entries.items()]
    drawn = {title: entry for title, entry in methods if entry["voi"] is not None}
    size, voxel = " x ".join(map(str, facts["shape"])), " x ".join(f"{n:g}" for n in facts["voxel_size_zyx"])
    return {
        "name": name,
        "data": f"{name}, {size} voxels of {voxel} nm (z, y, x)",
        "title": scores["titles"].get(headline, headline),
        "entry": entries[headline],
        "baseline": entries["baseline"]["oracle"] if "baseline" in entries and headline != "baseline" else None,
        "methods": methods,
        "drawn": drawn,
        "curves": draw_curves(drawn, standings.rows if standings else ()),
        "decisions": entries[headline].get("decisions"),
        "looks": draw_decisions(entries[headline]["decisions"]) if "decisions" in entries[headline] else [],
        "pictures": pictures,
        "stages": scores["stages"][name],
    }


def _facts(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of all that is needed to make it again."""
    for key, value in scores["model"].items():
        if key != "title":
            yield f"model: {key}", str(value)
    for volume, data in scores["data"].items():
        for key in ("raw", "labels", "mask", "roi"):
            if data.get(key):
                yield f"{volume}: {key}", _plain(data[key])
    for part in scores["split"]:
        yield f"{part['role']}: {part['name']}", f"{part['raw']} {part['region']}"
    for name, recipe in scores["recipes"].items():
        yield f"method: {name}", _plain({key: value for key, value in recipe.items() if key != "probability"})
    if scores["validation"]:
        yield "thresholds tried", _plain(scores["validation"]["thresholds"])
    for key, value in scores["conventions"].items():
        yield f"conventions: {key}", _plain(value)
    yield "machine", _plain(scores["machine"])
    yield "versions", _plain(scores["versions"])
    yield "configuration", scores["config_hash"]
    yield "date", scores["date"]


def _plain(value: Any) -> str:
    """A value in words; a mapping as names and values."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_plain(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
