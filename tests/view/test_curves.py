"""The report's curves."""

import re

from emsam_jax.view.curves import draw_over_threshold
from emsam_jax.view.parts import curves_part


def test_every_method_is_drawn_and_named_however_many_there_are():
    """Eight methods, six colours."""
    row = {"voi": 1.0, "voi_split": 0.6, "voi_merge": 0.4, "arand": 0.1}
    entries = {
        f"waterz_q{10 * i}": {
            "threshold": 0.5,
            **{name: value + i / 10 for name, value in row.items()},
            "oracle": {"threshold": 0.5, **row},
            "sweep": [{"threshold": at, **{k: v + i / 10 for k, v in row.items()}} for at in (0.3, 0.5, 0.7)],
        }
        for i in range(1, 9)
    }
    svg = draw_over_threshold(entries, "voi", "VOI (bits)")
    lines = re.findall(r'<path d="M [^"]*L [^"]*L [^"]*" clip-path[^>]*style="([^"]*)"', svg)
    assert len(lines) == len(set(lines)) == 8
    page = curves_part({"volumes": {"cells": entries}, "titles": {}}, "cells", None)
    legend = re.findall(r"<li><i[^>]*></i>(waterz_q\d0)</li>", page)
    assert legend == list(entries)
    assert page.count('class="dashed"') == 2
