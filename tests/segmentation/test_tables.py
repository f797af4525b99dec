"""Tables of blocks, merged, written and read."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise import EDGE, tables
from emsam_jax.segmentation.blockwise.tables import LOOKUP, OBJECT, look_up, merge_edges, merge_objects, write_lookup


def test_tables_of_blocks_are_merged_in_any_portions(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    edges = np.zeros(600, EDGE)
    edges["u"], edges["v"] = rng.integers(1, 5, 600), 2**40 + rng.integers(1, 5, 600)
    edges["mean"], edges["size"] = rng.random(600), rng.integers(1, 9, 600)
    objects = np.zeros(600, OBJECT)
    objects["id"], objects["voxels"] = 2**40 + rng.integers(1, 9, 600), rng.integers(1, 9, 600)
    objects["start"] = rng.integers(0, 50, (600, 3))
    objects["stop"] = objects["start"] + rng.integers(1, 9, (600, 3))
    for most in (1, 70, 10**6):
        monkeypatch.setattr(tables, "_MERGE_AT", most)
        merged = merge_edges(np.split(edges, 20))
        assert len(merged) == 16
        np.testing.assert_array_equal(np.lexsort((merged["v"], merged["u"])), np.arange(16))
        for edge in merged:
            own = edges[(edges["u"] == edge["u"]) & (edges["v"] == edge["v"])]
            assert edge["size"] == own["size"].sum()
            assert edge["mean"] == pytest.approx(np.average(own["mean"], weights=own["size"]), rel=1e-14)
        united = merge_objects(np.split(objects, 20))
        np.testing.assert_array_equal(united["id"], 2**40 + np.arange(1, 9))
        for one in united:
            own = objects[objects["id"] == one["id"]]
            assert one["voxels"] == own["voxels"].sum()
            np.testing.assert_array_equal(one["start"], own["start"].min(0))
            np.testing.assert_array_equal(one["stop"], own["stop"].max(0))


def test_a_long_lookup_is_read_in_parts(tmp_path: Path):
    rng = np.random.default_rng(0)
    lookup = np.zeros(30_000, LOOKUP)
    lookup["fragment"] = np.sort(rng.choice(2**62, len(lookup), replace=False))
    lookup["label"] = rng.integers(0, 2**60, len(lookup))
    write_lookup(str(tmp_path), lookup)
    for rows in ([], [0], [29_999], [4095, 4096], [3, 9000, 9001, 17_000, 29_999], range(30_000), range(8000, 13_000)):
        some = lookup[list(rows)]
        np.testing.assert_array_equal(look_up(str(tmp_path), some["fragment"].copy()), some["label"])
    row = 9000
    between = lookup["fragment"][row : row + 1] + np.uint64(1)
    for absent in (between, lookup["fragment"][:1] - np.uint64(1), lookup["fragment"][-1:] + np.uint64(1)):
        with pytest.raises(
            UserError, match=rf"lookup\.npy: expected every fragment .* found that {absent[0]} is missing"
        ):
            look_up(str(tmp_path), np.sort(np.append(lookup["fragment"][:5], absent)))
    (tmp_path / "lookup_pages.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"lookup_pages\.npy: expected a table in numpy's format, found a torn one"):
        look_up(str(tmp_path), lookup["fragment"][:1].copy())
