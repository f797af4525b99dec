"""Runs that were stopped, damaged or begun otherwise."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks import run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.volumes import Volume, create_volume, open_volume
from tests.segmentation.cells import AFFINITIES, IN_3D, store


class StoppedError(BaseException):
    pass


def stopping_at(count: int) -> Callable[[Step], object]:
    """Stops when so many blocks of all stages are done."""
    left = itertools.count(count, -1)

    class Stopping:
        def __init__(self, stage):
            self.stage, self.name = stage, stage.name

        def identity(self):
            return self.stage.identity()

        def is_intact(self, block, entry):
            return self.stage.is_intact(block, entry)

        def run(self, block):
            checksum = self.stage.run(block)
            if next(left) == 0:
                raise StoppedError  # as if killed: data without an entry
            return checksum

    return lambda step: run_in_turn(*Step(Stopping(step.stage), step.plan, step.ledger_url), progress=False)


def entries(out: Path) -> dict[str, str]:
    """Of all stages: what the run that made them calls itself."""
    return {
        f"{path.parts[-3]}/{path.name}": json.loads(path.read_text())["run"]
        for path in (out / "ledger").glob("*/done/*")
    }


def test_goes_on_where_it_was_stopped_and_does_again_what_is_damaged(stored: Volume, tmp_path: Path):
    recipe, block, out = Recipe(fragments=IN_3D), (10, 25, 30), tmp_path / "out"  # 8 blocks
    expected = segment_blockwise(stored, tmp_path / "undisturbed", recipe, block)[...]
    assert expected.max() > 5
    for count in (4, 3, 7):
        with pytest.raises(StoppedError):
            segment_blockwise(stored, out, recipe, block, run=stopping_at(count))
    before = entries(out)
    assert len(before) == 14
    np.testing.assert_array_equal(segment_blockwise(stored, out, recipe, block)[...], expected)
    after = entries(out)
    assert len(after) == 8 + 8 + 1 + 1 + 8
    assert {name: after[name] for name in before} == before

    torn = out / "fragments" / "0" / "c" / "0" / "1" / "0"
    torn.write_bytes(torn.read_bytes()[:-50])
    (out / "0" / "c" / "1" / "1" / "1").unlink()
    (out / "edges" / "1-0-1.npy").write_bytes(b"")
    (out / "counts" / "0-0-0.npy").unlink()
    (out / "faces" / "1-1-0.npy").write_bytes(b"")
    (out / "links" / "0-1-1.npy").unlink()
    (out / "edges.npy").unlink()
    table = bytearray((out / "lookup.npy").read_bytes())
    table[-1] ^= 1
    (out / "lookup.npy").write_bytes(table)
    (out / "ledger" / "labels" / "done" / "0-0-1").write_text("{")
    np.testing.assert_array_equal(segment_blockwise(stored, out, recipe, block)[...], expected)
    again = {name for name, run in entries(out).items() if run != after[name]}
    assert again == {
        *("fragments/0-1-0", "fragments/1-1-0", "edges/1-0-1", "edges/0-0-0", "edges/0-1-1", "graph/0-0-0"),
        *("lookup/0-0-0", "labels/0-0-1", "labels/1-1-1"),
    }


def test_another_run_in_the_same_place_is_refused(tmp_path: Path):
    out, recipe = tmp_path / "out", Recipe(fragments=IN_3D)
    stored = store(tmp_path / "affinities.zarr", AFFINITIES)
    segment_blockwise(stored, out, recipe, (10, 50, 60))
    with pytest.raises(UserError, match=r"threshold 0\.5 there, 0\.6 here"):
        segment_blockwise(stored, out, Recipe(threshold=0.6, fragments=IN_3D), (10, 50, 60))
    with pytest.raises(UserError, match="kind '3d' there, '2d' here"):
        segment_blockwise(stored, tmp_path / "other", Recipe(), (10, 50, 60), graph=out)
    create_volume(stored.url, stored.shape, "float32", (40, 4, 4), overwrite=True)[...] = 0.5
    with pytest.raises(UserError, match=r"content '\w+' there, '\w+' here"):
        segment_blockwise(open_volume(stored.url, channel="all"), out, recipe, (10, 50, 60))
    shutil.rmtree(out / "ledger")
    with pytest.raises(UserError, match="there is a volume already"):
        segment_blockwise(stored, out, recipe, (10, 50, 60))
