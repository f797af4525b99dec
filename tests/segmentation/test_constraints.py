"""Objects under constraints, against all partitions of a few fragments; and edits that contradict each other."""

import itertools

import numpy as np
import pytest

from emsam_jax.segmentation import new_edit
from emsam_jax.segmentation.blockwise import Answers, Tables
from emsam_jax.segmentation.blockwise.constraints import (
    FragmentGraph,
    Pair,
    implied_parts,
    part_objects,
    refuse_joins,
    unite_objects,
)
from emsam_jax.segmentation.blockwise.corrections import correct_objects, keep_names
from emsam_jax.segmentation.blockwise.placed_edits import PlacedEdit
from emsam_jax.segmentation.blockwise.tables import EDGE, LOOKUP

POINTS = {"join": [(0, 0, 0), (0, 0, 1)], "part": [(0, 0, 0), (0, 0, 1)], "done": [(0, 0, 0)]}


def draw_graph(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Connected: a random tree, and as many edges again."""
    pairs = {(int(rng.integers(v)), v) for v in range(1, count)}
    pairs |= {(min(a, b), max(a, b)) for a, b in rng.integers(count, size=(count, 2)).tolist() if a != b}
    u, v = np.array(sorted(pairs)).T
    return u, v


def as_tables(u: np.ndarray, v: np.ndarray, objects: np.ndarray, rng: np.random.Generator) -> tuple:
    """Fragments are called 10, 20, ..."""
    edges, lookup = np.zeros(len(u), EDGE), np.zeros(len(objects), LOOKUP)
    edges["u"], edges["v"] = 10 * u + 10, 10 * v + 10
    edges["mean"], edges["size"] = rng.random(len(u)), rng.integers(1, 100, len(u))
    lookup["fragment"], lookup["label"] = 10 * np.arange(len(objects)) + 10, objects
    return edges, lookup


def place(kind: str, *fragments: int) -> PlacedEdit:
    return PlacedEdit(new_edit(kind, POINTS[kind], "ada"), tuple(10 * each + 10 for each in fragments))


@pytest.mark.parametrize("seed", range(12))
def test_an_object_is_cut_where_it_costs_least(seed: int):
    """Of all ways in two, with a and b apart and what is joined together."""
    rng = np.random.default_rng(seed)
    u, v = draw_graph(rng, 8)
    graph = FragmentGraph(u, v, rng.random(len(u)) ** 4)
    a, b, c = rng.choice(8, 3, replace=False).tolist()
    united = unite_objects(np.array([3, 3, 3, 3, 7, 7, 7, 7]), [Pair(0, 7, 0)])
    found = part_objects(united, graph, [Pair(a, b, 0)], unite_objects(np.arange(8), [Pair(a, c, 1)]))
    assert found[a] == found[c] != found[b]
    assert len(np.unique(found)) == 2

    def cost(sides: np.ndarray) -> float:
        return float(graph.cost[sides[u] != sides[v]].sum())

    ways = map(np.array, itertools.product((0, 1), repeat=8))
    assert cost(found) == pytest.approx(min(cost(way) for way in ways if way[a] == way[c] != way[b]), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_all_edits_hold_that_can_and_nothing_else_changes(seed: int):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(8, 60))
    u, v = draw_graph(rng, count)
    before = rng.integers(1, count // 4 + 2, count)
    edges, lookup = as_tables(u, v, before, rng)
    kinds = rng.choice(["join", "part", "part", "done"] if seed % 3 else ["join", "part"], int(rng.integers(1, 25)))
    drawn = [(kind, *rng.choice(count, len(POINTS[kind]), replace=False).tolist()) for kind in kinds]
    placed = [place(*one) for one in drawn]
    found = correct_objects(placed, edges, lookup)

    def holds(objects: np.ndarray, kind: str, a: int, b: int = -1) -> bool:
        return kind == "done" or (kind == "join") == (objects[a] == objects[b])

    assert [one.held for one in placed] == [holds(before, *edit) for edit in drawn]
    assert all(holds(found, *edit) for one, edit in zip(placed, drawn, strict=True) if not one.why)
    ids = {one.edit.id for one in placed}
    assert all(one.against in ids and one.against in one.why for one in placed if one.why)
    touched = {int(before[row]) for _, *rows in drawn for row in rows}
    for name in set(before.tolist()) - touched:
        (kept,) = set(found[before == name].tolist())
        assert (found == kept).tolist() == (before == name).tolist()


def test_a_part_against_a_chain_of_joins_holds_and_the_later_join_is_refused():
    edges, lookup = as_tables(np.array([0, 1]), np.array([1, 2]), np.array([1, 2, 3]), np.random.default_rng(0))
    placed = [place("join", 0, 1), place("part", 0, 2), place("join", 1, 2)]
    correct_objects(placed, edges, lookup)
    assert [one.status for one in placed] == ["applied", "held", "impossible"]
    assert placed[2].why.startswith(f"Join {placed[2].edit.id} by ada (")
    assert f"contradicts Part {placed[1].edit.id} by ada (" in placed[2].why


@pytest.mark.parametrize("seed", range(40))
def test_joins_are_refused_that_contradict_a_part_and_as_few_as_can_be(seed: int):
    rng = np.random.default_rng(seed)
    drawn = [Pair(*map(int, rng.choice(6, 2, replace=False)), by=number) for number in range(int(rng.integers(3, 11)))]
    parts, joins = drawn[:1] if seed % 2 else drawn[::3], drawn[1:] if seed % 2 else drawn[1::3] + drawn[2::3]
    refused = refuse_joins(joins, parts, 6)

    def fits(kept: list[Pair]) -> bool:
        tied = unite_objects(np.arange(6), kept)
        return all(tied[a] != tied[b] for a, b, _ in parts)

    kept = [pair for pair in joins if pair.by not in refused]
    assert fits(kept)
    assert not any(fits([*kept, pair]) for pair in joins if pair.by in refused)
    assert set(refused.values()) <= {part.by for part in parts}
    if seed % 2:  # of one part, not fewer
        fewer = itertools.combinations(joins, len(kept) + 1)
        assert not any(fits(list(each)) for each in fewer)


def test_a_part_holds_between_all_that_is_joined_with_its_points():
    group = unite_objects(np.arange(6), [Pair(0, 2, 0), Pair(1, 3, 1)])
    objects = np.array([1, 2, 3, 3, 3, 4])
    assert [pair[:2] for pair in implied_parts(objects, [Pair(0, 1, 9)], group)] == [(2, 3)]
    # So 3 is cut between them, although 0 and 1 lie elsewhere; 4 goes with what it is closer to.
    graph = FragmentGraph(np.array([2, 3]), np.array([4, 4]), np.array([2.0, 1.0]))
    found = part_objects(objects, graph, implied_parts(objects, [Pair(0, 1, 9)], group), group)
    assert found[2] == found[4] != found[3]


@pytest.mark.parametrize("seed", range(15))
def test_answers_to_decisions_make_the_objects_that_the_same_edits_make(seed: int):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(8, 60))
    u, v = draw_graph(rng, count)
    edges, lookup = as_tables(u, v, rng.integers(1, count // 8 + 2, count), rng)
    rows = np.stack([rng.choice(count, 2, replace=False) for _ in range(int(rng.integers(2, 25)))])
    together = rng.random(len(rows)) < 0.5
    answers = Answers(Tables(edges, np.zeros(0), lookup))
    answers.give(lookup["fragment"][rows], together)
    placed = [place("join" if same else "part", *pair) for pair, same in zip(rows.tolist(), together, strict=True)]
    edited = correct_objects(placed, edges, lookup)
    names = {len(np.unique(each)) for each in (answers.labels, edited)}
    assert names == {len(np.unique([answers.labels, edited], axis=1).T)}


def test_a_done_object_is_shut_for_what_comes_after_it():
    u, v = np.array([0, 1, 2]), np.array([1, 2, 3])
    edges, lookup = as_tables(u, v, np.array([1, 1, 2, 3]), np.random.default_rng(0))
    early, late = place("join", 1, 2), place("join", 2, 3)
    done, cut, same = place("done", 0), place("part", 0, 1), place("join", 0, 2)
    found = correct_objects([early, done, late, cut, same], edges, lookup)
    assert (found[:3] == found[0]).all()
    assert found[3] != found[0]
    assert [one.status for one in (early, done, late, cut, same)] == [
        *("applied", "held", "impossible", "impossible", "applied"),
    ]
    assert late.against == cut.against == done.edit.id


def test_what_edits_leave_alone_keeps_its_label():
    before = np.array([1, 1, 2, 3, 3, 3, 4, 0], np.uint64)
    objects, voxels = np.array([8, 8, 8, 5, 6, 6, 9, 7]), np.array([5, 5, 50, 3, 2, 2, 5, 1])
    # 1 and 2 are one; 3 is cut, its larger part keeps it; 0 was too small, and is.
    assert keep_names(objects, before, voxels, 2).tolist() == [1, 1, 1, 5, 3, 3, 4, 0]
    assert keep_names(objects, before, voxels, 4).tolist() == [1, 1, 1, 0, 3, 3, 4, 0]
