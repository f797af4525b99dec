"""Large objects held apart, beside an agglomeration that looks at all pairs at every step."""

import itertools

import numpy as np
import pytest

from emsam_jax.segmentation import SegmentationError
from emsam_jax.segmentation.blockwise import EDGE, OBJECT, agglomerate_edges
from emsam_jax.segmentation.blockwise.guard import Guard, hold_apart


def draw_graph(seed: int, nodes: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(nodes), 2) if rng.random() < 0.12]
    edges = np.zeros(len(pairs), EDGE)
    edges["u"], edges["v"] = 7 + 3 * np.array(pairs, np.uint64).T
    edges["mean"], edges["size"] = rng.random(len(pairs)), rng.integers(1, 20, len(pairs))
    fragments = np.zeros(nodes, OBJECT)
    fragments["id"], fragments["size"] = 7 + 3 * np.arange(nodes), rng.integers(1, 100, nodes)
    return edges, fragments


def agglomerate_slowly(edges: np.ndarray, fragments: np.ndarray, threshold: float, guard: Guard) -> list[set[int]]:
    """Joins the best pair that may be joined, until there is none."""
    objects = [{int(name)} for name in fragments["id"]]
    sizes = dict(zip(fragments["id"].tolist(), fragments["size"].tolist(), strict=True))
    while True:
        best, pair = 1 - threshold, None
        for a, b in itertools.combinations(range(len(objects)), 2):
            between = [
                (e["mean"], e["size"])
                for e in edges
                if (e["u"] in objects[a] and e["v"] in objects[b]) or (e["v"] in objects[a] and e["u"] in objects[b])
            ]
            if not between:
                continue
            mean = sum(m * s for m, s in between) / sum(s for _, s in between)
            both_large = min(sum(sizes[name] for name in objects[i]) for i in (a, b)) >= guard.size > 0
            if mean > best and not (both_large and mean <= 1 - guard.threshold):
                best, pair = mean, (a, b)
        if pair is None:
            return objects
        objects[pair[0]] |= objects.pop(pair[1])


@pytest.mark.parametrize("seed", range(5))
def test_equals_joining_the_best_allowed_pair_within_each_object(seed: int):
    edges, fragments = draw_graph(seed)
    guard, threshold = Guard(150, 0.3), 0.6
    strict, lenient = agglomerate_edges(edges, fragments["id"], [guard.threshold, threshold])
    expected = set()
    for whole in agglomerate_slowly(edges, fragments, threshold, Guard()):
        inside = np.isin(edges["u"], list(whole)) & np.isin(edges["v"], list(whole))
        own = np.isin(fragments["id"], list(whole))
        expected |= {frozenset(o) for o in agglomerate_slowly(edges[inside], fragments[own], threshold, guard)}
    found = hold_apart(edges, fragments, strict, lenient, guard=guard, threshold=threshold)
    labels = found["label"]
    assert {frozenset(found["fragment"][labels == i].tolist()) for i in np.unique(labels)} == expected
    assert len(expected) > len(np.unique(lenient["label"]))  # something was held apart


def test_two_neurons_that_touch_at_a_weak_spot_stay_two_but_take_in_what_is_small():
    edges = np.array([(1, 2, 0.55, 10), (1, 3, 0.6, 10), (2, 4, 0.7, 10)], EDGE)
    fragments = np.zeros(4, OBJECT)
    fragments["id"], fragments["size"] = [1, 2, 3, 4], [1000, 900, 10, 10]
    guard = Guard(500, 0.2)
    strict, lenient = agglomerate_edges(edges, fragments["id"], [0.2, 0.5])
    assert len(np.unique(lenient["label"])) == 1
    one, two, three, four = hold_apart(edges, fragments, strict, lenient, guard=guard, threshold=0.5)["label"]
    assert one == three != two == four


@pytest.mark.parametrize(("size", "threshold"), [(-1, 0.2), (10, 0.0), (10, 1.5)])
def test_settings_without_a_meaning_are_refused(size: int, threshold: float):
    with pytest.raises(SegmentationError, match="expected a size above 0 and a threshold between 0 and 1"):
        Guard(size, threshold)


@pytest.mark.parametrize(("method", "threshold"), [("multicut", 0.5), ("waterz", 0.3)])
def test_there_must_be_something_to_be_stricter_than(method: str, threshold: float):
    with pytest.raises(SegmentationError, match=f"expected waterz and one below {threshold}"):
        Guard(10, 0.3).check(method, threshold)
