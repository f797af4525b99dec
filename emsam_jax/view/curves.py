"""Draws curves over the thresholds, as SVG in the page's own colours."""

import html
import io
import itertools
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emsam_jax.view.standings import Standing

# Colours that matplotlib draws in and that stand for the page's, which differ by light and dark.
_TEXT, _FAINT, _OTHER = "#010101", "#020202", "#030303"
COLOURS = 6  # after which they begin again, with another line
_SERIES = tuple(f"#0000{number:02x}" for number in range(1, COLOURS + 1))
_DASHES = ("-", "--", ":", "-.")
_PAGE = {_TEXT: "var(--ink)", _FAINT: "var(--line)", _OTHER: "var(--muted)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)
}
_STYLE: Any = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}
_LINE: dict[str, Any] = {"linewidth": 1.5, "marker": "o", "markersize": 2.4}
_OF_THREE, _OF_TWO = 4.6, 6.9  # width of a figure of so many in a row: their text is as large then
Methods = Mapping[str, Mapping[str, Any]]  # by title, as scores.json has them


def draw_curves(methods: Methods, standings: Sequence[Standing] = ()) -> list[tuple[Markup, str]]:
    """Each plot with its caption; none without methods."""
    if not methods:
        return []
    return [
        (
            draw_plane(methods, standings),
            "Splits against merges; the sum is the same along a dotted line. What is far off is not shown.",
        ),
        (draw_over_threshold(methods, "voi", "VOI (bits)"), "Variation of information over the threshold."),
        (draw_over_threshold(methods, "arand", "adapted Rand error"), "Adapted Rand error over the threshold."),
    ]


def draw_plane(methods: Methods, standings: Sequence[Standing] = ()) -> Markup:
    """Draws VOI split against merge: the lower left is better, and the sum is constant along dotted lines."""
    marked = [(standing.voi_merge, standing.voi_split) for standing in standings]
    figure, axes = _figure("VOI merge (bits)", "VOI split (bits)")
    for (colour, dashes), entry in zip(_styles(), methods.values(), strict=False):
        merge, split = (_column(entry["sweep"], name) for name in ("voi_merge", "voi_split"))
        axes.plot(merge, split, dashes, color=colour, **_LINE)
        axes.plot(entry["voi_merge"], entry["voi_split"], "o", color=colour, markersize=7)
        marked.append((entry["voi_merge"], entry["voi_split"]))
        if entry["sweep"]:
            best = entry["oracle"]
            axes.plot(best["voi_merge"], best["voi_split"], "o", mfc="none", mec=colour, markersize=11)
            marked.append((best["voi_merge"], best["voi_split"]))
    for letter, standing in zip(string.ascii_lowercase, standings, strict=False):
        place = standing.voi_merge, standing.voi_split
        axes.plot(*place, "D", color=_OTHER, markersize=4)
        axes.annotate(letter, place, xytext=(6, 3), textcoords="offset points", color=_OTHER)
    best = min(map(sum, marked))
    near = [place for place in marked if sum(place) <= 4 * best + 0.1]  # what is far off would hide the rest
    wide, high = (1.3 * max(values) + 0.1 for values in zip(*near, strict=True))
    axes.set(xlim=(0, wide), ylim=(0, high))
    axes.locator_params(axis="x", prune="lower")  # its 0 would run into the other axis's
    step = next(step for step in (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0) if (wide + high) / step < 8)
    for number in range(1, 8):
        axes.plot((0, number * step), (number * step, 0), ":", color=_OTHER, linewidth=0.8, zorder=0)
    return _to_svg(figure, "voi-plane", "VOI split over VOI merge for " + ", ".join(methods))


def draw_over_threshold(methods: Methods, name: str, title: str) -> Markup:
    """Draws one score over the thresholds; labels that have none are a level line."""
    figure, axes = _figure("threshold", title)
    for (colour, dashes), entry in zip(_styles(), methods.values(), strict=False):
        if entry["sweep"]:
            thresholds, values = (_column(entry["sweep"], key) for key in ("threshold", name))
            axes.plot(thresholds, values, dashes, color=colour, **_LINE)
            axes.plot(entry["threshold"], entry[name], "o", color=colour, markersize=7)
            axes.plot(entry["oracle"]["threshold"], entry["oracle"][name], "o", mfc="none", mec=colour, markersize=11)
        else:
            axes.axhline(entry[name], color=colour, linestyle=dashes, linewidth=1.6)
    axes.set(ylim=(0, None))
    axes.grid(axis="y")
    return _to_svg(figure, name, f"{title} over the threshold for " + ", ".join(methods))


def draw_decisions(found: Mapping[str, Any]) -> list[tuple[Markup, str]]:
    """Draws what looking at merge decisions mends, and whether their probabilities hold, each with its caption."""
    mended, axes = _figure("decisions looked at", "VOI (bits)", _OF_TWO)
    looked = [count + 1 for count in found["looked_at"]]  # so that none has a place on the axis
    for (colour, dashes), values in zip(_styles(), found["voi"].values(), strict=False):
        axes.plot(looked, values, dashes, color=colour, **_LINE)
    axes.axhline(found["voi"]["cost"][0] / 2, color=_OTHER, linestyle=":", linewidth=0.8)
    axes.set(xscale="log", ylim=(0, None))
    axes.grid(axis="y")
    reliable, axes = _figure("probability that both sides belong together", "share that do", _OF_TWO)
    points = [[row[name] for row in found["reliability"]] for name in ("probability", "together")]
    axes.plot((0, 1), (0, 1), ":", color=_OTHER, linewidth=0.8)
    axes.plot(*points, color=_SERIES[0], **_LINE)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    told = "VOI over the merge decisions that an oracle has looked at", "Share that belongs together over probability"
    figures = _to_svg(mended, "looked-at", told[0]), _to_svg(reliable, "reliability", told[1])
    return list(zip(figures, ("What looking mends.", "How far probabilities hold."), strict=True))


def _styles() -> Iterator[tuple[str, str]]:
    """Yields colour and dashes of each method, any number of them."""
    return ((colour, dashes) for dashes in itertools.cycle(_DASHES) for colour in _SERIES)


def _figure(xlabel: str, ylabel: str, width: float = _OF_THREE) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.tick_params(length=0)
        return figure, axes


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row["voi"] is not None]


def _to_svg(figure: Figure, salt: str, alt: str) -> Markup:
    """Returns SVG that fills its place on the page, with a description and ids that no other figure has."""
    file, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg ") :])  # it would hold for the whole page
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # only what is referred to needs an id
    svg = re.sub(r"font-family: [^;]*;", "", svg)
    svg = re.sub(r'^<svg .*?(viewBox="[^"]*").*?>', rf'<svg \1 role="img" aria-label="{html.escape(alt)}">', svg)
    for colour, variable in _PAGE.items():
        svg = svg.replace(colour, variable)
    return Markup(svg)
