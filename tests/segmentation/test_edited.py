"""Labels made with edits, from the command and block by block: what is asked for holds, and the rest stays."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks import run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.segmentation import Edit, Recipe, append_edit, new_edit
from emsam_jax.segmentation.blockwise import Step, read_edits_report, segment_blockwise
from emsam_jax.segmentation.blockwise.tables import LOOKUP, read_table
from emsam_jax.segmentation.edits import Point
from emsam_jax.volumes import Volume, open_volume
from tests.programs import environment
from tests.segmentation.cells import AFFINITIES, CELLS, IN_3D

BLOCK = (20, 32, 32)
RECIPE = Recipe("waterz", 0.5, IN_3D)


def at(voxel: np.ndarray) -> Point:
    """Of the volumes of `tests.segmentation.cells`: 40 x 4 x 4 nm, at 80, 8, 8."""
    z, y, x = (np.array(voxel) + 0.5) * (40, 4, 4) + (80, 8, 8)
    return float(z), float(y), float(x)


def inside(labels: np.ndarray, name: int) -> Point:
    return at(np.argwhere(labels == name)[np.count_nonzero(labels == name) // 2])


@pytest.fixture(scope="module")
def whole(stored: Volume, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return segment_blockwise(stored, tmp_path_factory.mktemp("whole") / "labels.zarr", RECIPE, BLOCK)


def fragments_of(graph: str) -> np.ndarray:
    """Without the cuts at blocks' faces."""
    pieces = read_table(graph, "pieces.npy", LOOKUP)
    names = np.zeros(int(pieces["fragment"].max()) + 1, np.uint64)
    names[pieces["fragment"]] = pieces["label"]
    return names[open_volume(f"{graph}/fragments")[...]]


RECIPES = {
    "mean": RECIPE,
    "multicut": Recipe("multicut", 0.5, IN_3D),
    "q50": Recipe("waterz", 0.5, IN_3D, scorer="q50"),
    "components": Recipe("components", 0.9),
}


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, id=name, marks=pytest.mark.slow if name != "mean" else ())
        for name, recipe in RECIPES.items()
    ],
)
def test_joins_and_parts_hold_by_every_method(recipe: Recipe, stored: Volume, tmp_path: Path):
    plain = segment_blockwise(stored, tmp_path / "plain.zarr", recipe, BLOCK)
    before, pieces = plain[...], fragments_of(plain.url)
    one, other, third = np.argsort(-np.bincount(before.ravel().astype(int))[1:])[:3] + 1
    edits = [new_edit("join", [inside(before, one), inside(before, other)], "ada")]
    cut = np.unique(pieces[before == third])[:2].tolist()
    if len(cut) == 2:
        edits.append(new_edit("part", [inside(pieces, cut[0]), inside(pieces, cut[1])], "ada"))
    ran = []

    def run(step: Step) -> None:
        ran.extend([step.stage.name] * run_in_turn(*step, progress=False).done)

    labels = segment_blockwise(stored, tmp_path / "edited.zarr", recipe, BLOCK, graph=plain.url, edits=edits, run=run)
    after = labels[...]
    assert set(ran) == {"lookup", "labels"} | {name for name in ran if name.startswith("pyramid")}
    report = read_edits_report(labels.url)
    assert (report.held, report.applied, report.impossible) == (0, len(edits), [])
    assert len(np.unique(after[np.isin(before, (one, other))])) == 1
    if len(cut) == 2:
        assert after[pieces == cut[0]][0] != after[pieces == cut[1]][0]
    rest = ~np.isin(before, (one, other, third))
    assert (after[rest] == before[rest]).all()


@pytest.mark.slow
def test_each_edit_is_told_and_the_command_says_so(whole: Volume, tmp_path: Path):
    before, pieces = whole[...], fragments_of(whole.url)
    first, second, third = (inside(before, name) for name in (1, 2, 3))
    piece = inside(pieces, int(pieces.max()))
    RECIPE.write(f"{whole.url}/postprocess.json")
    drawn: list[tuple[str, list[Point], str, str]] = [
        ("join", [first, second], "applied", ""),
        ("part", [first, third], "held", ""),
        ("join", [second, third], "impossible", "contradicts Part"),
        (
            "join",
            [first, (0.0, 0.0, 0.0)],
            "impossible",
            "0, 0, 0 nm (z, y, x), outside the volume: expected 80 to 880",
        ),
        ("part", [piece, piece], "impossible", "which cannot be cut"),
        ("done", [third], "held", ""),
    ]
    path, edits = tmp_path / "edits.jsonl", [new_edit(kind, points, "ada") for kind, points, _, _ in drawn]
    for edit in (*edits, undone := new_edit("join", [first, third], "bob")):
        append_edit(path, edit)
    append_edit(path, new_edit("undo", [], "bob", undoes=undone.id))
    command = [sys.executable, "-m", "emsam_jax", "segment", f"--graph={whole.url}", f"--edits={path}", "--workers=1"]
    ran = subprocess.run(
        [*command, f"--out={tmp_path / 'new.zarr'}"], env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1, ran.stderr
    assert "Edits: 2 held already, 1 applied, 3 impossible." in ran.stdout
    assert "Traceback" not in ran.stderr
    rows = list(csv.DictReader((tmp_path / "new.zarr/edits_report.csv").read_text().splitlines()))
    assert json.loads((tmp_path / "new.zarr/edits_report.json").read_text())[0]["id"] == rows[0]["id"]
    for row, edit, (kind, _, status, why) in zip(rows, edits, drawn, strict=True):
        assert (row["id"], row["kind"], row["status"]) == (edit.id, kind, status)
        assert why in row["why"]
        assert bool(row["why"]) == (status == "impossible")
        assert not why or row["why"] in ran.stdout
    assert rows[2]["against"] == edits[1].id
    assert (rows[0]["object_a"], rows[1]["object_a"], rows[1]["object_b"]) == ("1", "1", "3")
    assert (rows[3]["fragment_b"], rows[3]["object_b"]) == ("0", "0")
    again = subprocess.run(
        [*command, f"--out={tmp_path / 'new.zarr'}", "--nostrict_edits"],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert again.returncode == 0


def test_other_edits_are_another_run_and_the_same_resume(stored: Volume, whole: Volume, tmp_path: Path):
    before = whole[...]
    edits = [new_edit("join", [inside(before, 1), inside(before, 2)], "ada")]

    def segment(edits: list[Edit]) -> np.ndarray:
        out = tmp_path / "labels.zarr"
        return segment_blockwise(stored, out, RECIPE, BLOCK, graph=whole.url, edits=edits)[...]

    first = segment(edits)
    (tmp_path / "labels.zarr/edits_report.csv").write_text("torn")
    assert (segment(edits) == first).all()
    assert (tmp_path / "labels.zarr/edits_report.csv").read_text() != "torn"
    with pytest.raises(UserError, match=r"comes from another run, with edits '\w+' there, '\w+' here"):
        segment([*edits, new_edit("done", [inside(before, 3)], "ada")])


@pytest.mark.slow
def test_edits_hold_on_other_fragments(stored: Volume, tmp_path: Path):
    """Of another model: cells that are one by truth are joined, others parted, whatever the fragments are."""
    rng = np.random.default_rng(0)
    names, middle = np.unique(CELLS), []
    for name in names:
        middle.append(at(np.argwhere(name == CELLS)[np.count_nonzero(name == CELLS) // 2]))
    edits = [new_edit("part", [middle[a], middle[b]], "ada") for a, b in rng.choice(len(names), (40, 2)) if a != b]
    coarse = Recipe("waterz", 0.95, IN_3D)
    plain = segment_blockwise(stored, tmp_path / "plain.zarr", coarse, BLOCK)[...]
    after = segment_blockwise(stored, tmp_path / "edited.zarr", coarse, BLOCK, edits=edits)[...]
    report = read_edits_report(str(tmp_path / "edited.zarr"))
    assert report.held + report.applied + len(report.impossible) == len(edits)
    assert report.applied > 0
    assert all("which cannot be cut" in why for why in report.impossible)
    assert len(np.unique(after)) > len(np.unique(plain))
    assert AFFINITIES.shape[1:] == after.shape
