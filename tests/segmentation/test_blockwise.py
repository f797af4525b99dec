"""Block by block as at once: equal labels, whatever the blocks, their order, and what happened on the way."""

import itertools
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import waterz

from emsam_jax.blocks import Block, LedgerError, Plan, run_in_turn
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import (
    CleanUp,
    FragmentParameters,
    Recipe,
    SegmentationError,
    ideal_affinities,
    make_fragments,
    segment_affinities,
)
from emsam_jax.segmentation.agglomeration import SCORERS
from emsam_jax.segmentation.blockwise import (
    EDGE,
    LOOKUP,
    OBJECT,
    Step,
    agglomerate_edges,
    look_up,
    merge_edges,
    merge_objects,
    merging,
    plan_job,
    plan_steps,
    read_table,
    segment_blockwise,
)
from emsam_jax.segmentation.blockwise.tables import write_lookup
from emsam_jax.volumes import Volume, VolumeError, create_volume, open_volume
from emsam_jax.volumes.box import Voxel
from tests.segmentation.test_segment import draw_cells

BLOCKS = [(8, 16, 32), (7, 50, 20), (20, 24, 24), (24, 60, 64)]  # of 20 x 50 x 60: all but the last hang over
IN_3D = FragmentParameters("3d", seed_distance=3)


def draw_affinities(cells: np.ndarray, noise: float = 1.2, seed: int = 0) -> np.ndarray:
    """Of thick borders, with noise on their log odds."""
    ideal = np.clip(ideal_affinities(cells), 0.02, 0.98)
    odds = np.log(ideal / (1 - ideal)) + np.random.default_rng(seed).normal(0, noise, ideal.shape)
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


CELLS = draw_cells(3, (20, 50, 60), 25)
AFFINITIES = draw_affinities(CELLS)


MASK = np.ones(CELLS.shape, np.uint8)
MASK[:, 20:24, :40] = 0


def store(path: Path, values: np.ndarray) -> Volume:
    volume = create_volume(path, values.shape, values.dtype, (40, 4, 4), offset_zyx=(80, 8, 8))
    volume[...] = values
    return open_volume(path, channel="all" if values.ndim == 4 else None)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return store(tmp_path_factory.mktemp("affinities") / "affinities.zarr", AFFINITIES)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """Fragments of the whole volume, of sparse ids."""
    fragments = make_fragments(AFFINITIES, FragmentParameters("2d", seed_distance=3))
    fragments[:, :4] = 0
    ids = np.sort(np.random.default_rng(1).choice(2**40, int(fragments.max()) + 1, replace=False)).astype(np.uint64)
    ids[0] = 0
    return store(tmp_path_factory.mktemp("fragments") / "fragments.zarr", ids[fragments])


def distance(labels: np.ndarray, other: np.ndarray) -> float:
    """VOI over all voxels, background as an object of its own: 0 only where the two are the same up to ids."""
    assert ((labels == 0) == (other == 0)).all()
    return score_segmentation(labels + np.uint64(1), other + np.uint64(1))["voi"]


class Shuffled(Plan):
    def indices(self) -> Iterator[Voxel]:
        found = [(z, y, x) for z, y, x in itertools.product(*map(range, self.counts))]
        random.Random(7).shuffle(found)
        yield from found

    def __iter__(self) -> Iterator[Block]:
        yield from map(self.at, self.indices())


def in_another_order(step: Step) -> None:
    plan = Shuffled(step.plan.volume, step.plan.region, step.plan.block)
    assert len(plan) == 1 or list(plan) != list(step.plan)
    run_in_turn(*Step(pickle.loads(pickle.dumps(step.stage)), plan, step.ledger_url), progress=False)


@pytest.mark.parametrize("block", BLOCKS)
def test_components_equal_those_of_the_whole(stored: Volume, block: tuple[int, int, int], tmp_path: Path):
    mask = store(tmp_path / "mask.zarr", MASK)
    labels = segment_blockwise(stored, tmp_path / "out.zarr", Recipe("components", 0.2), block, mask=mask)
    expected = segment_affinities(AFFINITIES, "components", 0.2, mask=MASK)
    assert 30 < expected.max() < 3000
    assert (expected[MASK > 0] == 0).any()
    assert distance(labels[...], expected) == 0
    assert (labels.voxel_size_zyx, labels.offset_zyx) == ((40, 4, 4), (80, 8, 8))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("method", ["waterz", "multicut"])
def test_the_same_fragments_give_the_same_neurons(
    stored: Volume, given: Volume, method: str, block: tuple[int, int, int], tmp_path: Path
):
    fragments = np.where(MASK, given[...], 0)
    mask, graph = store(tmp_path / "mask.zarr", MASK), tmp_path / "0.4"
    for threshold in (0.4, 0.6):
        out = tmp_path / str(threshold)
        recipe = Recipe(method, threshold)
        labels = segment_blockwise(stored, out, recipe, block, fragments=given, mask=mask, graph=graph)[...]
        expected = segment_affinities(AFFINITIES, method, threshold, fragments=given[...], mask=MASK)
        assert 5 < expected.max() < len(np.unique(fragments)) / 2
        assert distance(labels, expected) == 0
        assert_objects_are_right(out, labels)
    some = np.unique(fragments)[[1, 5, 6, -1]]
    np.testing.assert_array_equal(look_up(str(out), some), [labels[fragments == one][0] for one in some])
    assert not (tmp_path / "0.6" / "edges.npy").exists()


def assert_objects_are_right(out: Path, labels: np.ndarray) -> None:
    objects = read_table(str(out), "objects.npy")
    np.testing.assert_array_equal(objects["id"], np.arange(1, labels.max() + 1))
    for row in objects[:: len(objects) // 5]:
        where = np.argwhere(labels == row["id"])
        assert row["size"] == len(where)
        np.testing.assert_array_equal(row["start"], where.min(0))
        np.testing.assert_array_equal(row["stop"], where.max(0) + 1)


def test_average_linkage_equals_waterz_at_every_threshold(stored: Volume, given: Volume, tmp_path: Path):
    segment_blockwise(stored, tmp_path / "out", Recipe(), (8, 16, 32), fragments=given)
    edges, ids = (read_table(str(tmp_path / "out"), name) for name in ("edges.npy", "fragments.npy"))
    assert (edges["u"] < edges["v"]).all()
    thresholds = [0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9]
    place = np.searchsorted(np.append(0, ids["id"]), given[...])
    counts = []
    for threshold, lookup in zip(thresholds, agglomerate_edges(edges, ids["id"], thresholds), strict=True):
        labels = np.append(0, lookup["label"]).astype(np.uint64)[place]
        fragments = place.astype(np.uint64)
        merging = waterz.agglomerate(
            AFFINITIES, [threshold], fragments=fragments, scoring_function=SCORERS["mean"], discretize_queue=0
        )
        assert distance(labels, np.asarray(next(merging))) == 0
        counts.append(int(labels.max()))
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 4


def test_the_order_of_blocks_leaves_no_trace(stored: Volume, tmp_path: Path):
    """Nor does a stage's journey to another process."""
    recipe = Recipe("waterz", 0.5, fragments=IN_3D, clean_up=CleanUp(min_size=50))
    labels = segment_blockwise(stored, tmp_path / "one", recipe, (8, 16, 32))[...]
    again = segment_blockwise(stored, tmp_path / "two", recipe, (8, 16, 32), run=in_another_order)[...]
    np.testing.assert_array_equal(labels, again)
    assert np.bincount(labels.ravel().astype(int))[1:].min() >= 50
    assert (labels == 0).any()
    assert_objects_are_right(tmp_path / "one", labels)
    lookup = read_table(str(tmp_path / "one"), "lookup.npy")
    fragments = open_volume(tmp_path / "one" / "fragments")[...]
    np.testing.assert_array_equal(lookup["fragment"], np.unique(fragments))
    np.testing.assert_array_equal(lookup["label"][np.searchsorted(lookup["fragment"], fragments)], labels)


def costs_of_blocks(cells: np.ndarray, recipes: list[Recipe], block: tuple[int, int, int], folder: Path) -> list[float]:
    """By how much VOI against truth is higher than where fragments are made at once."""
    affinities = draw_affinities(cells).astype(np.float16)
    volume = store(folder / "affinities.zarr", affinities)
    costs = []
    for recipe in recipes:
        labels = segment_blockwise(volume, folder / recipe.method, recipe, block, graph=folder / "graph")[...]
        by_block, at_once = (score_segmentation(found, cells)["voi"] for found in (labels, recipe.segment(affinities)))
        print(
            f"Fragments by block, {recipe.fragments.kind}, {recipe.method}: VOI {by_block:.4f}, at once {at_once:.4f}"
        )
        costs.append(by_block - at_once)
    return costs


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_fragments_of_blocks_cost_little(kind: str, tmp_path: Path):
    recipe = Recipe("waterz", 0.6, fragments=FragmentParameters(kind, seed_distance=4))
    assert max(costs_of_blocks(draw_cells(0, (32, 96, 100), 30), [recipe], (16, 48, 50), tmp_path)) < 0.03


def test_fragments_of_blocks_cost_little_on_fib25(read_fib25: Callable[[], np.ndarray], tmp_path: Path):
    recipes = [Recipe(method, 0.5, fragments=IN_3D) for method in ("waterz", "multicut")]
    cells = read_fib25()[:64, :160, :160].astype(np.uint64)
    assert max(costs_of_blocks(cells, recipes, (32, 80, 80), tmp_path)) < 0.03


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
    (out / "edges.npy").unlink()
    table = bytearray((out / "lookup.npy").read_bytes())
    table[-1] ^= 1
    (out / "lookup.npy").write_bytes(table)
    (out / "ledger" / "labels" / "done" / "0-0-1").write_text("{")
    np.testing.assert_array_equal(segment_blockwise(stored, out, recipe, block)[...], expected)
    again = {name for name, run in entries(out).items() if run != after[name]}
    assert again == {
        *("fragments/0-1-0", "edges/1-0-1", "edges/0-0-0", "graph/0-0-0"),
        *("lookup/0-0-0", "labels/0-0-1", "labels/1-1-1"),
    }


def test_another_run_in_the_same_place_is_refused(tmp_path: Path):
    out, recipe = tmp_path / "out", Recipe(fragments=IN_3D)
    stored = store(tmp_path / "affinities.zarr", AFFINITIES)
    segment_blockwise(stored, out, recipe, (10, 50, 60))
    with pytest.raises(LedgerError, match=r"threshold 0\.5 there, 0\.6 here"):
        segment_blockwise(stored, out, Recipe(threshold=0.6, fragments=IN_3D), (10, 50, 60))
    with pytest.raises(LedgerError, match="kind '3d' there, '2d' here"):
        segment_blockwise(stored, tmp_path / "other", Recipe(), (10, 50, 60), graph=out)
    create_volume(stored.url, stored.shape, "float32", (40, 4, 4), overwrite=True)[...] = 0.5
    with pytest.raises(LedgerError, match=r"content '\w+' there, '\w+' here"):
        segment_blockwise(open_volume(stored.url, channel="all"), out, recipe, (10, 50, 60))
    shutil.rmtree(out / "ledger")
    with pytest.raises(VolumeError, match="there is a volume already"):
        segment_blockwise(stored, out, recipe, (10, 50, 60))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(scorer="q50"), "waterz with the scorer mean, multicut, components, but found waterz with q50"),
        (Recipe("mutex"), "but found mutex"),
        (Recipe(clean_up=CleanUp(fill=True)), "without clean_up.fill"),
        (Recipe(threshold=1.0), "between 0 and 1"),
    ],
)
def test_says_what_cannot_be_done_by_block(recipe: Recipe, message: str, stored: Volume, tmp_path: Path):
    with pytest.raises(SegmentationError, match=message):
        segment_blockwise(stored, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_a_volume_where_nothing_is_joined(tmp_path: Path):
    nothing = store(tmp_path / "nothing.zarr", np.zeros((3, 8, 20, 20), np.uint8))
    for method in ("waterz", "multicut", "components"):
        labels = segment_blockwise(nothing, tmp_path / method, Recipe(method), (4, 10, 20))
        assert not labels[...].any()
        assert len(read_table(str(tmp_path / method), "objects.npy")) == 0
    steps = plan_steps(plan_job(nothing, tmp_path / "planned", Recipe()))
    assert [step.stage.name for step in steps] == ["fragments", "edges", "graph", "lookup", "labels"]
    assert not (tmp_path / "planned").exists()


def test_tables_of_blocks_are_merged_in_any_portions(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    edges = np.zeros(600, EDGE)
    edges["u"], edges["v"] = rng.integers(1, 5, 600), 2**40 + rng.integers(1, 5, 600)
    edges["mean"], edges["size"] = rng.random(600), rng.integers(1, 9, 600)
    objects = np.zeros(600, OBJECT)
    objects["id"], objects["size"] = 2**40 + rng.integers(1, 9, 600), rng.integers(1, 9, 600)
    objects["start"] = rng.integers(0, 50, (600, 3))
    objects["stop"] = objects["start"] + rng.integers(1, 9, (600, 3))
    for most in (1, 70, 10**6):
        monkeypatch.setattr(merging, "_MERGE_AT", most)
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
            assert one["size"] == own["size"].sum()
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
    (tmp_path / "pages.npy").write_bytes(b"")
    with pytest.raises(VolumeError, match=r"pages\.npy: expected a table in numpy's format, found a torn one"):
        look_up(str(tmp_path), lookup["fragment"][:1].copy())
