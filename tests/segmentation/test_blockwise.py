"""Block by block as at once: equal labels, whatever the blocks and their order."""

import itertools
import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import waterz
from skimage.measure import label

from emsam_jax.blocks import Block, Plan, run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe, blockwise, make_fragments, segment_affinities
from emsam_jax.segmentation.agglomeration import SCORERS
from emsam_jax.segmentation.blockwise import (
    EDGE,
    Guard,
    Step,
    plan_job,
    plan_steps,
    read_table,
    segment_blockwise,
)
from emsam_jax.segmentation.blockwise.global_agglomeration import agglomerate_edges
from emsam_jax.segmentation.blockwise.tables import LOOKUP, OBJECT, look_up
from emsam_jax.segmentation.cleaning import CleanUp
from emsam_jax.volumes import Volume, Voxel, open_volume
from tests.segmentation.cells import AFFINITIES, IN_3D, MASK, store

BLOCKS = [(8, 16, 32), (7, 50, 20), (20, 24, 24), (24, 60, 64)]  # of 20 x 50 x 60: all but the last hang over


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
    objects = read_table(str(out), "objects.npy", OBJECT)
    np.testing.assert_array_equal(objects["id"], np.arange(1, labels.max() + 1))
    for row in objects[:: len(objects) // 5]:
        where = np.argwhere(labels == row["id"])
        assert row["voxels"] == len(where)
        np.testing.assert_array_equal(row["start"], where.min(0))
        np.testing.assert_array_equal(row["stop"], where.max(0) + 1)


def test_average_linkage_equals_waterz_at_every_threshold(stored: Volume, given: Volume, tmp_path: Path):
    segment_blockwise(stored, tmp_path / "out", Recipe(), (8, 16, 32), fragments=given)
    edges, ids = (
        read_table(str(tmp_path / "out"), name, dtype)
        for name, dtype in (("edges.npy", EDGE), ("fragments.npy", OBJECT))
    )
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


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_blocks_that_see_everything_have_the_fragments_of_the_whole(kind: str, stored: Volume, tmp_path: Path):
    parameters = FragmentParameters(kind, seed_distance=3)
    recipe, out, halo = Recipe("waterz", 0.2, fragments=parameters), str(tmp_path / "out"), (20, 50, 60)
    labels = segment_blockwise(stored, out, recipe, (7, 16, 32), halo=halo)[...]
    pieces, ids = read_table(out, "pieces.npy", LOOKUP), open_volume(f"{out}/fragments")[...]
    np.testing.assert_array_equal(pieces["fragment"], np.unique(ids))
    whole = np.asarray(label(make_fragments(AFFINITIES, parameters), connectivity=1)).astype(np.uint64)
    assert len(np.unique(ids)) > whole.max() > labels.max() > 10
    assert distance(pieces["label"][np.searchsorted(pieces["fragment"], ids)], whole) == 0
    assert distance(labels, segment_affinities(AFFINITIES, "waterz", 0.2, fragments=whole)) == 0


def test_the_order_of_blocks_leaves_no_trace(stored: Volume, tmp_path: Path):
    """Nor does a stage's journey to another process."""
    recipe = Recipe("waterz", 0.5, fragments=IN_3D, clean_up=CleanUp(min_size=2000))
    labels = segment_blockwise(stored, tmp_path / "one", recipe, (8, 16, 32))[...]
    again = segment_blockwise(stored, tmp_path / "two", recipe, (8, 16, 32), run=in_another_order)[...]
    np.testing.assert_array_equal(labels, again)
    assert np.bincount(labels.ravel().astype(int))[1:].min() >= 2000
    assert (labels == 0).any()
    assert_objects_are_right(tmp_path / "one", labels)
    lookup = read_table(str(tmp_path / "one"), "lookup.npy", LOOKUP)
    fragments = open_volume(tmp_path / "one" / "fragments")[...]
    np.testing.assert_array_equal(lookup["fragment"], np.unique(fragments))
    np.testing.assert_array_equal(lookup["label"][np.searchsorted(lookup["fragment"], fragments)], labels)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(scorer="q51"), "would need a compiler for the scorer 'q51'"),
        (Recipe("mutex"), "expected one of waterz, multicut, components, but found mutex"),
        (Recipe(clean_up=CleanUp(fill=True)), "without clean_up.fill"),
        (Recipe(threshold=1.0), "between 0 and 1"),
    ],
)
def test_says_what_cannot_be_done_by_block(recipe: Recipe, message: str, stored: Volume, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        segment_blockwise(stored, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_a_volume_where_nothing_is_joined(tmp_path: Path):
    nothing = store(tmp_path / "nothing.zarr", np.zeros((3, 8, 20, 20), np.uint8))
    for recipe in (Recipe(), Recipe(scorer="q50"), Recipe("multicut"), Recipe("components")):
        out = tmp_path / f"{recipe.method} {recipe.scorer}"
        assert not segment_blockwise(nothing, out, recipe, (4, 10, 20))[...].any()
        assert len(read_table(str(out), "objects.npy", OBJECT)) == 0
    guarded = segment_blockwise(nothing, tmp_path / "guarded", Recipe(), (4, 10, 20), guard=Guard(9, 0.2), queue=9)
    assert (tmp_path / "guarded" / "queue.csv").read_text().count("\n") == 1
    assert not guarded[...].any()
    steps = plan_steps(plan_job(nothing, tmp_path / "planned", Recipe()))
    assert [step.stage.name for step in steps] == ["fragments", "edges", "graph", "lookup", "labels"]
    assert not (tmp_path / "planned").exists()


def test_files_are_numbered_and_listed_as_stages_run(tmp_path: Path) -> None:
    job = plan_job(store(tmp_path / "a.zarr", AFFINITIES), tmp_path / "out", Recipe(scorer="q50"), queue=9)
    steps = [step.stage.name for step in plan_steps(job) if not step.stage.name.startswith("pyramid")]
    names = [f"stage_{number}_{name}" for number, name in enumerate(steps, 1)]
    listed = re.findall(r"^    (stage_\w+) ", blockwise.__doc__ or "", re.MULTILINE)
    assert names == listed == sorted(file.stem for file in Path(blockwise.__file__).parent.glob("stage_*.py"))
