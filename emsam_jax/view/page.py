"""The report: one page that asks nothing of anyone, with all that scores.json says and the pictures."""

import dataclasses
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from emsam_jax.view.exhibit import Exhibit, pair
from emsam_jax.view.panels import Section, draw_sections
from emsam_jax.view.parts import curves_part, scores_part, sections_part, tiles, worst_part
from emsam_jax.view.score_tables import facts_table, stages_table, volumes_table
from emsam_jax.view.standings import find_standings
from emsam_jax.view.worst_drawn import WorstObject, draw_worst

_HERE = Path(__file__).parent
# The browser would stop the page from reaching out even if it held an address.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True)
class Illustrations:
    sections: list[Section]
    worst: list[WorstObject]


def illustrate(exhibit: Exhibit, sections: int = 3, worst: int = 10) -> Illustrations:
    pairing = pair(exhibit.labels, exhibit.truth, exhibit.labelled)
    return Illustrations(draw_sections(exhibit, pairing, sections), draw_worst(exhibit, worst))


def render(scores: Mapping[str, Any], illustrations: Mapping[str, Illustrations]) -> str:
    """The page as HTML. `scores` is what scores.json holds; a volume may go without pictures."""
    style, script = ((_HERE / name).read_text() for name in ("style.css", "zoom.js"))
    volumes = [_volume(scores, volume, illustrations.get(volume)) for volume in scores["volumes"]]
    title = escape(scores["title"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{style}</style></head>\n"
        f"<body><main>{_header(scores)}{''.join(volumes)}{_making(scores)}</main>"
        f'<dialog aria-label="picture, enlarged"><img alt="" src="data:,"><p></p></dialog>'
        f"<script>{script}</script></body></html>\n"
    )


def _header(scores: Mapping[str, Any]) -> str:
    several = len(scores["volumes"]) > 1
    data = [_tell_data(volume, facts) for volume, facts in scores["data"].items()]
    facts = [scores["model"]["title"], *([f"{len(data)} volumes"] if several else data), scores["date"][:10]]
    links = [(volume, volume) for volume in scores["volumes"]] if several else [
        ("scores", "Scores"), ("thresholds", "Thresholds"), ("sections", "Sections"), ("worst", "Worst objects")
    ]  # fmt: skip
    nav = "".join(
        f'<a href="#{escape(anchor)}">{escape(text)}</a>' for anchor, text in [*links, ("making", "How it was made")]
    )
    told = "".join(
        f'<p class="note">{escape(text)}, as --allow_overlap lets it: this is no test.</p>'
        for text in scores["overlaps"]
    )
    told += _tell_all(scores) if several else _tell_scores(scores, next(iter(scores["volumes"])))
    return (
        f'<header><p class="eyebrow">Neuron segmentation, evaluated</p><h1>{escape(scores["title"])}</h1>'
        f'<p class="facts">{" &middot; ".join(map(escape, facts))}</p>{told}'
        f'<nav aria-label="Parts of this page">{nav}</nav></header>'
    )


def _tell_scores(scores: Mapping[str, Any], volume: str) -> str:
    """The result in a sentence and in tiles."""
    name, entries = scores["headline"], scores["volumes"][volume]
    entry = entries[name]
    if entry["voi"] is None:
        return '<p class="lead">No voxel is left to compare.</p>'
    title = scores["titles"].get(name, name)
    at = "" if entry["threshold"] is None else f" at threshold {entry['threshold']:.3g}"
    return (
        f'<p class="lead"><strong>{escape(title)}</strong>{at}: {entry["voi_split"]:.3f} bits of splits and '
        f"{entry['voi_merge']:.3f} bits of merges, adapted Rand error {entry['arand']:.3f}. {escape(scores['how'])}</p>"
        + tiles(entry, entries.get("baseline") if name != "baseline" else None)
    )


def _tell_all(scores: Mapping[str, Any]) -> str:
    name = scores["headline"]
    title = escape(scores["titles"].get(name, name))
    lead = f'<p class="lead"><strong>{title}</strong> on each volume. {escape(scores["how"])}</p>'
    return lead + volumes_table(scores["volumes"], name)


def _tell_data(volume: str, facts: Mapping[str, Any]) -> str:
    size = " x ".join(str(n) for n in facts["shape"])
    voxel = " x ".join(f"{n:g}" for n in facts["voxel_size_zyx"])
    return f"{volume}, {size} voxels of {voxel} nm (z, y, x)"


def _volume(scores: Mapping[str, Any], volume: str, pictures: Illustrations | None) -> str:
    several = len(scores["volumes"]) > 1
    standings = find_standings(scores["standings"])
    parts = [
        ("scores", "Scores", scores_part(scores, volume, standings)),
        ("thresholds", "Over the threshold", curves_part(scores, volume, standings)),
    ]
    if pictures:
        parts += [
            ("sections", "Sections, and what is wrong in them", sections_part(pictures.sections)),
            ("worst", f"The {len(pictures.worst)} worst objects", worst_part(pictures.worst)),
        ]
    parts.append(("stages", "Throughput", stages_table(scores["stages"][volume])))
    prefix, level = (f"{volume}-", 3) if several else ("", 2)
    body = "".join(_section(escape(prefix + anchor), level, title, content) for anchor, title, content in parts)
    if not several:
        return body
    facts = escape(_tell_data(volume, scores["data"][volume]))
    head = f'<h2 id="{escape(volume)}">{escape(volume)}</h2><p class="facts">{facts}</p>'
    return head + _tell_scores(scores, volume) + body


def _section(anchor: str, level: int, title: str, content: str) -> str:
    return f'<section aria-labelledby="{anchor}"><h{level} id="{anchor}">{title}</h{level}>{content}</section>'


def _making(scores: Mapping[str, Any]) -> str:
    """All that is needed to make it again."""
    facts = [(f"model: {key}", str(value)) for key, value in scores["model"].items() if key != "title"]
    for volume, data in scores["data"].items():
        facts += [(f"{volume}: {key}", _plain(data[key])) for key in ("raw", "labels", "mask", "roi") if data.get(key)]
    for part in scores["split"]:
        facts.append((f"{part['role']}: {part['name']}", f"{part['raw']} {part['region']}"))
    facts += [(f"method: {name}", _plain(recipe)) for name, recipe in scores["recipes"].items()]
    if scores["validation"]:
        facts.append(("thresholds tried", _plain(scores["validation"]["thresholds"])))
    facts += [(f"conventions: {key}", _plain(value)) for key, value in scores["conventions"].items()]
    facts += [("machine", _plain(scores["machine"])), ("versions", _plain(scores["versions"]))]
    facts += [("configuration", scores["config_hash"]), ("date", scores["date"])]
    config = json.dumps(scores["config"], indent=2, default=str)
    details = f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
    made = f"Made by EMSAM-JAX {escape(scores['versions']['emsam-jax'])}."
    return (
        _section("making", 2, "How it was made", facts_table(facts) + details)
        + f"<footer>Every number of this page stands in scores.json beside it. {made}</footer>"
    )


def _plain(value: Any) -> str:
    """A value in words: what holds others as name and value."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_plain(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
