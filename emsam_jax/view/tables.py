"""Tables of scores, in HTML."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from emsam_jax.view.standings import Standings

Entries = Mapping[str, Mapping[str, Any]]

_WAYS = {
    "all": "all voxels",
    "borders_ignored": "borders of the truth ignored, 1 voxel on each side",
    "without_largest": "without the largest object",
    "interior": "away from the volume's faces",
}
_SCORES = ("voi_split", "voi_merge", "voi", "arand")


def table(head: str, bodies: Iterable[str], caption: str = "") -> str:
    """Of rows as HTML; scrolls by itself where the page is narrow."""
    inner = f"<caption>{caption}</caption>" if caption else ""
    rows = "".join(bodies)
    return f'<div class="table" role="region" tabindex="0" aria-label="table"><table>{inner}<thead>{head}</thead>{rows}</table></div>'


def scores_table(entries: Entries, titles: Mapping[str, str], headline: str, standings: Standings | None) -> str:
    """A method a row: as chosen, at the literature's threshold, and the best of the sweep; below what is known."""
    head = (
        '<tr><th rowspan="2" scope="col">method</th><th colspan="5" scope="colgroup" class="left-edge">chosen, then frozen</th>'
        '<th colspan="2" scope="colgroup" class="left-edge">fixed at 0.5</th><th colspan="3" scope="colgroup" class="left-edge">oracle</th></tr>'
        '<tr><th scope="col" class="left-edge">threshold</th><th scope="col">VOI split</th><th scope="col">merge</th>'
        '<th scope="col">sum</th><th scope="col">ARAND</th><th scope="col" class="left-edge">VOI</th><th scope="col">ARAND</th>'
        '<th scope="col" class="left-edge">threshold</th><th scope="col">VOI</th><th scope="col">ARAND</th></tr>'
    )
    rows = []
    for name, entry in entries.items():
        fixed, oracle = entry.get("fixed"), entry.get("oracle")
        cells = [
            f'<th scope="row">{escape(titles.get(name, name))}</th>',
            _cell(entry["threshold"], 2, edge=True),
            *[_cell(entry[key]) for key in _SCORES],
            _cell(fixed and fixed["voi"], edge=True),
            _cell(fixed and fixed["arand"]),
            _cell(oracle and oracle["threshold"], 2, edge=True),
            _cell(oracle and oracle["voi"]),
            _cell(oracle and oracle["arand"]),
        ]
        rows.append(f"<tr{' class=ours' if name == headline else ''}>{''.join(cells)}</tr>")
    bodies = [f"<tbody>{''.join(rows)}</tbody>"]
    if standings:
        bodies.append(_known(standings))
    return table(head, bodies)


def _known(standings: Standings) -> str:
    rows = [f'<tr><th colspan="11" scope="rowgroup" class="group">known results, {escape(standings.part)}</th></tr>']
    for row in standings.rows:
        note = f' <span class="note">{escape(row.note)}</span>' if row.note else ""
        cells = [_cell(None, edge=True), *[_cell(getattr(row, key)) for key in _SCORES]]
        rest = [_cell(None, edge=True), _cell(None), _cell(None, edge=True), _cell(None), _cell(None)]
        rows.append(f'<tr><th scope="row">{escape(row.method)}{note}</th>{"".join(cells + rest)}</tr>')
    return f'<tbody class="others">{"".join(rows)}</tbody>'


def ways_table(entry: Mapping[str, Any]) -> str:
    """One method, counted in four ways, with 95% intervals."""
    head = (
        '<tr><th scope="col">counted</th><th scope="col">VOI split</th><th scope="col">merge</th><th scope="col">sum</th>'
        '<th scope="col">95% of it</th><th scope="col">ARAND</th><th scope="col">95% of it</th>'
        '<th scope="col">neurons</th><th scope="col">million voxels</th></tr>'
    )
    rows = []
    for way, scores in entry["ways"].items():
        intervals = scores["intervals_95"]
        cells = [
            *[_cell(scores[key]) for key in ("voi_split", "voi_merge", "voi")],
            _interval(intervals["voi"]),
            _cell(scores["arand"]),
            _interval(intervals["arand"]),
            f"<td>{scores['objects']}</td>",
            _cell(scores["voxels"] / 1e6, 2),
        ]
        left_out = scores.get("left_out")
        name = _WAYS.get(way, way) + (f" ({left_out})" if left_out is not None else "")
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"])


def stages_table(stages: Mapping[str, Mapping[str, Any]]) -> str:
    head = (
        '<tr><th scope="col">stage</th><th scope="col">seconds</th><th scope="col">million voxels/s</th>'
        '<th scope="col" class="words">of which</th></tr>'
    )
    rows = [
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>{_cell(stage["seconds"], 2)}'
        f"{_cell(stage['voxels_per_second'] / 1e6, 2)}<td class=words>{escape(stage.get('detail', ''))}</td></tr>"
        for name, stage in stages.items()
    ]
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"])


def facts_table(facts: Sequence[tuple[str, str]]) -> str:
    """Names and what they stand for."""
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="words">{escape(text)}</td></tr>' for name, text in facts
    ]
    return table("", [f"<tbody>{''.join(rows)}</tbody>"])


def _cell(value: float | None, digits: int = 3, *, edge: bool = False) -> str:
    text = '<span aria-label="none">&ndash;</span>' if value is None else f"{value:.{digits}f}"
    return f"<td{' class=left-edge' if edge else ''}>{text}</td>"


def _interval(bounds: Sequence[float] | None) -> str:
    return _cell(None) if bounds is None else f"<td>{bounds[0]:.2f}&ndash;{bounds[1]:.2f}</td>"
