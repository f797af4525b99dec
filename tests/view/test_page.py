"""The report's page, made of scores alone."""

import re
from html.parser import HTMLParser
from typing import Any

from emsam_jax.view import render
from emsam_jax.view.curves import draw_over_threshold

ROW = {"voi": 1.0, "voi_split": 0.6, "voi_merge": 0.4, "arand": 0.1}
WAY = {**ROW, "intervals_95": {"voi": [0.9, 1.1], "arand": None}, "objects": 3, "voxels": 10**6}
WAYS = dict.fromkeys(("all", "borders_ignored", "interior"), WAY)
HOSTILE = "<script>alert('&')</script>\"><img src=x onerror=alert(1)>"


def make_entry(shift: float) -> dict[str, Any]:
    sweep = [{"threshold": at, **{name: value + shift for name, value in ROW.items()}} for at in (0.3, 0.5, 0.7)]
    ways = {**WAYS, "without_largest": {**WAY, "left_out": 7, "swallowed": None}}
    return {**sweep[1], "fixed": None, "oracle": sweep[0], "sweep": sweep, "ways": ways}


def make_scores(methods: list[str], volumes: list[str], text: str = "") -> dict[str, Any]:
    """As eval.py writes them; `text` is what others may have written."""
    entries = {name: make_entry(i / 10) for i, name in enumerate(methods)}
    return {
        "title": text,
        "date": "2026-01-01T00:00:00",
        "headline": methods[0],
        "how": text,
        "volumes": dict.fromkeys(volumes, entries),
        "titles": {},
        "model": {"title": text, "stored": text},
        "data": {name: {"shape": [4, 5, 6], "voxel_size_zyx": [40, 4, 4], "raw": text} for name in volumes},
        "split": [{"role": "test", "name": text, "raw": text, "region": text}],
        "overlaps": [text],
        "standings": "fib25",
        "conventions": {text: text},
        "recipes": {text: {text: text}},
        "validation": None,
        "stages": {name: {text: {"seconds": 1.0, "voxels_per_second": 1e6, "detail": text}} for name in volumes},
        "versions": {"emsam-jax": text},
        "machine": {text: text},
        "config_hash": text,
        "config": {text: text},
    }


def test_every_method_is_drawn_and_named_however_many_there_are():
    """Eight methods, six colours."""
    methods = [f"waterz_q{10 * i}" for i in range(1, 9)]
    scores = make_scores(methods, ["cells"])
    svg = draw_over_threshold(scores["volumes"]["cells"], "voi", "VOI (bits)")
    lines = re.findall(r'<path d="M [^"]*L [^"]*L [^"]*" clip-path[^>]*style="([^"]*)"', svg)
    assert len(lines) == len(set(lines)) == 8
    page = render(scores, {})
    assert re.findall(r"<li><i[^>]*></i>(waterz_q\d0)</li>", page) == methods
    assert page.count('class="dashed"') == 2


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_what_others_wrote_stays_text():
    for volumes in ([HOSTILE], [HOSTILE, f"{HOSTILE} 2"]):
        page = render(make_scores([HOSTILE, "baseline"], volumes, HOSTILE), {})
        found, plain = Tags(), Tags()
        found.feed(page)
        plain.feed(render(make_scores(["a", "baseline"], ["b", "c"][: len(volumes)], "d"), {}))
        assert found.tags == plain.tags
        assert found.tags.count("script") == 1
        assert not found.handlers


def test_where_no_voxel_is_left_to_compare():
    scores = make_scores(["multicut"], ["cells"])
    nothing = dict.fromkeys(ROW)
    way = {**WAY, **nothing, "intervals_95": {"voi": None, "arand": None}, "left_out": 0, "swallowed": None}
    ways = dict.fromkeys(("all", "borders_ignored", "without_largest", "interior"), way)
    scores["volumes"]["cells"]["multicut"] |= {**nothing, "ways": ways}
    page = render(scores, {})
    assert "No voxel is left to compare." in page
    assert "<svg" not in page
