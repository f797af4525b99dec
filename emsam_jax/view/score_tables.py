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
_BLANK = '<td class="left-edge"></td>'
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # by which the curves name known results
_SCORES = ("voi_split", "voi_merge", "voi", "arand")


def table(head: str, bodies: Iterable[str]) -> str:
    """Of rows as HTML; scrolls by itself where the page is narrow."""
    whole = f"<table><thead>{head}</thead>{''.join(bodies)}</table>"
    return f'<div class="table" role="region" tabindex="0" aria-label="table">{whole}</div>'


def scores_table(entries: Entries, titles: Mapping[str, str], headline: str, standings: Standings | None) -> str:
    """A method a row: as chosen, at the literature's threshold, and the best of the sweep; below what is known."""
    head = (
        f"<tr>{_head('method', rows=2)}{_head('chosen, then frozen', columns=5, edge=True)}"
        f"{_head('fixed at 0.5', columns=2, edge=True)}{_head('oracle', columns=3, edge=True)}</tr><tr>"
        f"{_head('at', edge=True)}{_head('VOI split')}{_head('merge')}{_head('sum')}{_head('ARAND')}"
        f"{_head('VOI', edge=True)}{_head('ARAND')}{_head('at', edge=True)}{_head('VOI')}{_head('ARAND')}</tr>"
    )
    rows = []
    for name, entry in entries.items():
        fixed, oracle = entry.get("fixed"), entry.get("oracle")
        cells = [
            f'<th scope="row">{escape(titles.get(name, name))}</th>',
            _cell(entry["threshold"], edge=True),
            *[_cell(entry[key]) for key in _SCORES],
            _cell(fixed and fixed["voi"], edge=True),
            _cell(fixed and fixed["arand"]),
            _cell(oracle and oracle["threshold"], edge=True),
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
    for letter, row in zip(LETTERS, standings.rows, strict=False):
        scores = "".join(_cell(getattr(row, key)) for key in _SCORES)
        note = f'<td colspan="5" class="words left-edge">{escape(row.note)}</td>'
        rows.append(f'<tr><th scope="row"><i>{letter}</i>{escape(row.method)}</th>{_BLANK}{scores}{note}</tr>')
    return f'<tbody class="others">{"".join(rows)}</tbody>'


def volumes_table(volumes: Mapping[str, Entries], headline: str) -> str:
    """The method shown first on each volume, and their mean."""
    entries = {volume: methods[headline] for volume, methods in volumes.items() if methods[headline]["voi"] is not None}
    head = f"<tr>{''.join(map(_head, ('volume', 'VOI split', 'merge', 'sum', 'ARAND')))}</tr>"
    rows = []
    for volume, entry in entries.items():
        link = f'<a href="#{escape(volume)}">{escape(volume)}</a>'
        rows.append(f'<tr><th scope="row">{link}</th>{"".join(_cell(entry[key]) for key in _SCORES)}</tr>')
    if entries:
        means = (sum(entry[key] for entry in entries.values()) / len(entries) for key in _SCORES)
        rows.append(f'<tr class="ours"><th scope="row">mean</th>{"".join(map(_cell, means))}</tr>')
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"])


def ways_table(entry: Mapping[str, Any]) -> str:
    """One method, counted in four ways, with 95% intervals."""
    names = ("counted", "VOI split", "merge", "sum", "95%", "ARAND", "95%", "neurons", "million voxels")
    head = f"<tr>{''.join(map(_head, names))}</tr>"
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
        left_out = f" ({scores['left_out']})" if "left_out" in scores else ""
        name = _WAYS[way] + left_out
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"]) + _swallowed(entry["ways"]["without_largest"])


def _swallowed(way: Mapping[str, Any]) -> str:
    found = way["swallowed"]
    if not found:
        return ""
    told = (
        f"Segments that are mostly the largest object ({way['left_out']}): {found['segments']}. They also hold "
        f"{found['voxels']:,} of the {found['of_voxels']:,} voxels of other neurons, and of {found['neurons']} neurons "
        "the most; these merges don't count where the object is left out."
    )
    return f'<p class="note">{told}</p>'


def stages_table(stages: Mapping[str, Mapping[str, Any]]) -> str:
    head = f"<tr>{_head('stage')}{_head('seconds')}{_head('million voxels/s')}{_head('of which', words=True)}</tr>"
    rows = [
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>{_cell(stage["seconds"], 2)}'
        f"<td>{stage['voxels_per_second'] / 1e6:.3g}</td><td class=words>{escape(stage.get('detail', ''))}</td></tr>"
        for name, stage in stages.items()
    ]
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"])


def facts_table(facts: Sequence[tuple[str, str]]) -> str:
    """Names and what they stand for."""
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="words">{escape(text)}</td></tr>' for name, text in facts
    ]
    return table("", [f"<tbody>{''.join(rows)}</tbody>"])


def _head(text: str, *, columns: int = 1, rows: int = 1, edge: bool = False, words: bool = False) -> str:
    spans = f' colspan="{columns}" scope="colgroup"' if columns > 1 else ' scope="col"'
    spans += f' rowspan="{rows}"' if rows > 1 else ""
    names = [name for name, wanted in (("left-edge", edge), ("words", words)) if wanted]
    return f'<th{spans} class="{" ".join(names)}">{text}</th>'


def _cell(value: float | None, digits: int = 3, *, edge: bool = False) -> str:
    text = '<span aria-label="none">&ndash;</span>' if value is None else f"{value:.{digits}f}"
    return f"<td{' class=left-edge' if edge else ''}>{text}</td>"


def _interval(bounds: Sequence[float] | None) -> str:
    return _cell(None) if bounds is None else f"<td>{bounds[0]:.2f}&ndash;{bounds[1]:.2f}</td>"
