"""A run's small files, damaged or forged: each ends in a sentence or is made anew, and never in other labels."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsam_jax.blocks import RunLock, lock
from emsam_jax.errors import UserError
from emsam_jax.segment_volume import describe_run
from emsam_jax.segmentation import FragmentParameters, Recipe, ideal_affinities
from emsam_jax.segmentation.blockwise import EDGE, read_summary, read_table, segment_blockwise
from emsam_jax.segmentation.blockwise.tables import look_up
from emsam_jax.volumes import create_volume, open_volume
from tests.segmentation.cells import draw_cells

RECIPE, BLOCK = Recipe("waterz", 0.5, FragmentParameters("2d", seed_distance=3)), (4, 16, 32)
SENSELESS: list[Any] = [
    *(None, True, -1, 0, 2**70, 1e308, float("nan"), float("-inf"), "", "x", "\x00", "\ud800", [], [[]], {}),
    *([1, 2], [0, 0, 0], [2**40] * 3, "../../x", "9999-99-99", "a" * 100_000),
]
RAW = [b"{", b"null", b"[]", b"\xff\xfe", b"[" * 200_000, b"9" * 10_000, b"\x93NUMPY", b"\x00" * 4096, b""]


def damaged(content: bytes, rng: np.random.Generator) -> list[bytes]:
    """A file, otherwise: bits and bytes changed, cut off or added; or, one after the other, its fields."""
    made = list(RAW)
    for start in (0, 64, len(content) - 8):
        one = bytearray(content)
        one[min(start + int(rng.integers(8)), len(one) - 1)] ^= 1 << int(rng.integers(8))
        made.append(bytes(one))
    made += [content[: rng.integers(len(content))], content + b"x" * 16]
    try:
        fields = json.loads(content)
    except ValueError:
        return made
    for name in fields:
        forged = fields | {name: SENSELESS[rng.integers(len(SENSELESS))]}
        made += [json.dumps(forged).encode(), json.dumps({n: fields[n] for n in fields if n != name}).encode()]
    return made


def ends_well(do: Callable[[], Any]) -> Any:
    """None after a sentence; anything else that is raised comes out."""
    result, said = None, ""
    try:
        result = do()
    except UserError as error:
        said = str(error)
    assert not said or 20 < len(said) < 1500
    return result


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two blocks; beside it the affinities."""
    folder = tmp_path_factory.mktemp("forged")
    affinities = ideal_affinities(draw_cells(3, (4, 32, 32), 20)).astype(np.float32)
    create_volume(folder / "affinities.zarr", affinities.shape, "float32", (40, 4, 4))[...] = affinities
    segment(folder / "out")
    return folder / "out"


def segment(out: Path) -> np.ndarray:
    return segment_blockwise(open_volume(out.parent / "affinities.zarr", channel="all"), out, RECIPE, BLOCK)[...]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("ledger/fragments/done/0-0-0", "ledger/labels/done/0-1-0", "ledger/lookup/identity.json", "summary.json"),
        *("edges/0-1-0.npy", "lookup.npy", "lookup_pages.npy", "faces/0-0-0.npy"),
    ],
)
def test_a_run_over_damaged_files_ends_in_a_sentence_or_the_same_labels(name: str, out: Path):
    file, expected = out / name, open_volume(out)[...]
    assert expected.max() > 3
    whole, ids = file.read_bytes(), np.load(out / "lookup.npy")["fragment"]
    rng = np.random.default_rng(len(name))
    cases = damaged(whole, rng)
    for number in rng.permutation(len(cases)):
        file.write_bytes(cases[number])
        ends_well(lambda: describe_run(str(out)))
        ends_well(lambda: read_summary(str(out)))
        table = ends_well(lambda: read_table(str(out), "edges/0-1-0.npy", EDGE))
        assert table is None or table.dtype == EDGE
        ends_well(lambda: look_up(str(out), ids))
        if number % 5 == 0:
            labels = ends_well(lambda: segment(out))
            assert labels is None or (labels == expected).all()
    file.write_bytes(whole)
    np.testing.assert_array_equal(segment(out), expected)


def test_a_damaged_lease_is_nobodys_or_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_RENEW", 0.02)
    lease, rng = tmp_path / "running.json", np.random.default_rng(0)
    with RunLock(str(tmp_path)):
        fields = json.loads(lease.read_text())
    elsewhere = fields | {"host": "elsewhere", "renewed": time.time() + 1e6}
    cases = [*damaged(json.dumps(fields).encode(), rng), *damaged(json.dumps(elsewhere).encode(), rng)]
    cases += [json.dumps(elsewhere | {"renewed": value}).encode() for value in (None, 10**400, float("nan"), 1e11)]
    for content in cases:
        lease.write_bytes(content)
        said = ""
        try:
            with RunLock(str(tmp_path)) as held:
                held.check()
        except UserError as error:
            said = str(error)
        assert not said or f"{lease}: another run is writing here (process " in said
        assert not (said and b"elsewhere" in content)
