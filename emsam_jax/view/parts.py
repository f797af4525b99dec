"""What the report shows of one volume: tables, curves, sections and objects, in HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from emsam_jax.view.colours import BOTH, MERGE, SPLIT, UNSEGMENTED
from emsam_jax.view.curves import COLOURS, draw_over_threshold, draw_plane
from emsam_jax.view.images import Picture
from emsam_jax.view.panels import Section, tell
from emsam_jax.view.score_tables import scores_table, ways_table
from emsam_jax.view.standings import Standings
from emsam_jax.view.worst_drawn import WorstObject

_ERRORS = (
    (SPLIT, "split: cut off from its neuron's main segment"),
    (MERGE, "merge: in a segment that is mostly another neuron"),
    (BOTH, "both: shifted borders and exchanged pieces"),
    (UNSEGMENTED, "unsegmented"),
)


def tiles(entry: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    """The numbers to remember."""
    told = [
        (f"{entry['voi']:.3f}", "VOI in bits, lower is better"),
        (f"{entry['voi_split']:.3f}", "of it split: neurons in pieces"),
        (f"{entry['voi_merge']:.3f}", "of it merge: neurons joined"),
        (f"{entry['arand']:.3f}", "adapted Rand error"),
    ]
    if baseline and entry["voi"]:
        best = baseline["oracle"]["voi"]
        told.append((f"{best:.3f}", f"VOI of smoothed intensity at its best, {best / entry['voi']:.1f} times as much"))
    cells = [
        f'<div class="tile{"" if i else " first"}"><b>{number}</b><span>{text}</span></div>'
        for i, (number, text) in enumerate(told)
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def scores_part(scores: Mapping[str, Any], volume: str, standings: Standings | None) -> str:
    entries = scores["volumes"][volume]
    notes = [
        escape(scores["how"]),
        "The oracle is the best of the sweep, found by looking at the truth: a bound, no result.",
    ]
    if standings:
        notes.append(f"Known results: {escape(standings.data)}. {escape(standings.source)}")
    headline = scores["headline"]
    title = escape(scores["titles"].get(headline, headline))
    return (
        scores_table(entries, scores["titles"], headline, standings)
        + "".join(f'<p class="note">{note}</p>' for note in notes)
        + f"<h3>{title}, counted in four ways</h3>"
        + ways_table(entries[headline])
        + '<p class="note">Intervals are percentiles of 1000 draws of the neurons with replacement: how far the score '
        "would move with other neurons of the same kind.</p>"
    )


def curves_part(scores: Mapping[str, Any], volume: str, standings: Standings | None) -> str:
    methods = {scores["titles"].get(name, name): entry for name, entry in scores["volumes"][volume].items()}
    shown = {title: entry for title, entry in methods.items() if entry["voi"] is not None}
    key = "".join(_key(i, title) for i, title in enumerate(shown))
    key += '<li><i class="dot"></i>as chosen</li><li><i class="ring"></i>oracle</li>'
    key += '<li><i class="diamond"></i>known results, named by letter</li>' if standings else ""
    figures = [
        (
            draw_plane(shown, standings.rows if standings else ()),
            "Splits against merges; the sum is the same along a dotted line. What is far off is not shown.",
        ),
        (draw_over_threshold(shown, "voi", "VOI (bits)"), "Variation of information over the threshold."),
        (draw_over_threshold(shown, "arand", "adapted Rand error"), "Adapted Rand error over the threshold."),
    ]
    drawn = "".join(f"<figure>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in figures)
    return f'<ul class="legend">{key}</ul><div class="plots">{drawn}</div>'


def _key(number: int, title: str) -> str:
    lined = "" if number < COLOURS else ' class="dashed"'
    return f'<li><i{lined} style="--c: var(--series-{number % COLOURS + 1})"></i>{escape(title)}</li>'


def sections_part(sections: Sequence[Section]) -> str:
    key = "".join(f'<li><i style="--c: rgb{colour}"></i>{text}</li>' for colour, text in _ERRORS)
    shown = []
    for section in sections:
        panels = "".join(_figure(panel.picture, panel.title) for panel in section.panels)
        shown.append(f'<h3>{escape(section.title)}</h3><p class="note">{tell(section.shares)}</p>')
        shown.append(f'<div class="panels" style="--columns: {len(section.panels)}">{panels}</div>')
    return (
        "<p>A neuron has the same colour in the truth and in the segment that is mostly this neuron and holds most of "
        f'it. Sections are evenly spread. A click enlarges a picture.</p><ul class="legend">{key}</ul>{"".join(shown)}'
    )


def worst_part(worst: Sequence[WorstObject]) -> str:
    """Cards."""
    if not worst:
        return "<p>No object costs anything.</p>"
    return (
        "<p>Split neurons and merging segments, by the bits that each adds to the VOI. Left, the object in space; "
        "right, where it goes wrong. Its main piece is pale, and the others stand out. "
        "Places are voxels of the raw.</p>"
        f'<ol class="worst">{"".join(map(_card, worst))}</ol>'
    )


def _card(found: WorstObject) -> str:
    return (
        f'<li><div class="head"><span class="kind {found.kind}">{found.kind.removesuffix("s")}</span>'
        f'<b>{escape(found.name)}</b><span class="bits">{found.bits:.3f} bit</span></div>'
        f"{_image(found.shape)}{_image(found.section)}"
        f"<p>{escape(found.text)}. {found.voxels:,} voxels; look at {escape(found.place)}.</p></li>"
    )


def _figure(picture: Picture, caption: str) -> str:
    return f"<figure>{_image(picture)}<figcaption>{escape(caption)}</figcaption></figure>"


def _image(picture: Picture) -> str:
    return f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{escape(picture.alt)}">'
