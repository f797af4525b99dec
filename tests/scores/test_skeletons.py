"""Expected run length by hand, and by another implementation."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.scores.skeletons import Skeleton, make_skeletons, read_skeletons, score_skeletons

SIZE = (40.0, 4.0, 4.0)
OFFSET = (400.0, 0.0, 80.0)


def line(y: int, count: int = 11) -> Skeleton:
    """Along x through section 0, a node a voxel: edges of 4 nm."""
    nodes = np.array([[400.0 + 20, 4.0 * y + 2, 80.0 + 4 * x + 2] for x in range(count)])
    return Skeleton(nodes, np.stack([np.arange(count - 1), np.arange(1, count)], 1))


def score(labels: np.ndarray, **options: int) -> dict:
    return score_skeletons({1: line(0), 2: line(2)}, labels, SIZE, offset_zyx=OFFSET, **options)


def test_run_lengths_by_hand() -> None:
    labels = np.zeros((1, 4, 11), np.uint64)
    labels[0, 0], labels[0, 2] = 5, 6
    perfect = score(labels)
    assert (perfect["erl"], perfect["erl_max"], perfect["normalised_erl"]) == pytest.approx((40, 40, 1))

    labels[0, 0, 6:] = 7  # nodes 0-5 and 6-10: runs of 20 and 16 nm, the edge between them is split
    split = score(labels)
    assert split["erl"] == pytest.approx((20**2 + 16**2 + 40**2) / 80)
    assert (split["correct"], split["split"]) == pytest.approx((76 / 80, 4 / 80))

    labels[0, 2, 10] = 7  # segment 7 touches the second skeleton: a merger, and its runs are worth nothing
    merged = score(labels)
    assert merged["erl"] == pytest.approx((20**2 + 36**2) / 80)
    assert (merged["merged"], merged["split"], merged["mergers"]) == (16 / 80, 8 / 80, [7])
    assert score(labels, merge_nodes=2)["mergers"] == []  # unless one node is not enough

    labels[0, 2, 0] = 0
    assert score(labels)["omitted"] == pytest.approx(4 / 80)
    assert score(labels)["normalised_erl"] == pytest.approx((20**2 + 32**2) / (2 * 40**2))


def erl_by_walking(skeletons: dict[int, Skeleton], labels: np.ndarray) -> tuple[float, float]:
    """As Januszewski et al. 2018 and funlib.evaluate define it, edge by edge: the length that one keeps from a point.

    Returns it in nm, and as a share of the length that there is.
    """

    def segment(skeleton: Skeleton, node: int) -> int | None:
        place = [int((at - start) // size) for at, start, size in zip(skeleton.nodes[node], OFFSET, SIZE, strict=True)]
        inside = all(0 <= at < side for at, side in zip(place, labels.shape, strict=True))
        return int(labels[tuple(place)]) if inside else None

    holders: dict[int, set[int]] = {}
    for name, skeleton in skeletons.items():
        for node in range(len(skeleton.nodes)):
            if found := segment(skeleton, node):
                holders.setdefault(found, set()).add(name)
    whole, erl, longest = 0.0, 0.0, 0.0
    for skeleton in skeletons.values():
        runs: dict[int, float] = {}
        length = 0.0
        for u, v in skeleton.edges:
            first, second = segment(skeleton, u), segment(skeleton, v)
            if first is None or second is None:
                continue
            step = float(np.sqrt(((skeleton.nodes[u] - skeleton.nodes[v]) ** 2).sum()))
            length += step
            if first == second and first and len(holders[first]) == 1:
                runs[first] = runs.get(first, 0.0) + step
        if length:
            # From a point drawn along the skeleton one keeps the run that it lies in, 0 where it lies in none.
            erl += length * sum(run / length * run for run in runs.values())
            longest += length * length
            whole += length
    return erl / whole, erl / longest


def test_run_lengths_equal_another_implementation() -> None:
    """On branched skeletons that leave the volume, and labels with splits, mergers and gaps."""
    kinds = ("correct", "omitted", "split", "merged")
    shares, shape = np.zeros(len(kinds)), (6, 40, 40)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        cells = np.indices(shape) // np.array([3, 10, 10])[:, None, None, None]
        labels = np.maximum(0, rng.permutation(32).reshape(2, 4, 4) - 5).astype(np.uint64)[tuple(cells)]
        skeletons = {}
        for name in range(1, 6):
            walk = np.cumsum(rng.normal(0, 0.8, (60, 3)), 0) + rng.uniform(0, shape)
            parents = np.maximum(0, np.arange(59) - rng.integers(0, 3, 59))  # branches
            skeletons[name] = Skeleton(walk * SIZE + OFFSET, np.stack([np.arange(1, 60), parents], 1))
        scores = score_skeletons(skeletons, labels, SIZE, offset_zyx=OFFSET)
        assert (scores["erl"], scores["normalised_erl"]) == pytest.approx(erl_by_walking(skeletons, labels))
        shares += [scores[kind] for kind in kinds]
    assert shares.min() > 0


def test_a_run_may_have_a_gap() -> None:
    """A segment found again after another one is the same run: the field sums by skeleton and segment."""
    labels = np.zeros((1, 4, 11), np.uint64)
    labels[0, 0], labels[0, 2] = 5, 6
    labels[0, 0, 5] = 9
    assert score(labels)["erl"] == pytest.approx((32**2 + 40**2) / 80)


def test_edges_outside_do_not_count() -> None:
    labels = np.ones((1, 1, 6), np.uint64)
    assert score(labels)["length"] == pytest.approx(20)
    assert "no skeleton" in score(labels[:, :, :1])["reason"]


def test_skeletons_of_the_truth_lie_in_it() -> None:
    truth = np.zeros((3, 12, 60), np.uint16)
    truth[1, 2:5, 5:55], truth[:, 8:11] = 3, 9
    skeletons = make_skeletons(truth, SIZE, offset_zyx=OFFSET)
    assert set(skeletons) == {3, 9}
    assert skeletons[3].lengths.sum() == pytest.approx(4 * 49, rel=0.05)
    scores = score_skeletons(skeletons, truth, SIZE, offset_zyx=OFFSET)
    assert (scores["normalised_erl"], scores["correct"]) == pytest.approx((1, 1))
    assert make_skeletons(truth, SIZE, min_length=1e6) == {}


def test_broken_skeletons_are_refused() -> None:
    with pytest.raises(UserError, match="indices of its 2 nodes, but reach from 0 to 2"):
        Skeleton(np.zeros((2, 3)), np.array([[0, 2]]))


SWC = "# made by hand\n1 2 80 0 420 1 -1\n3 2 88 0 420 1 1  # off the first\n2 2 84 8 420 1 1\n"
CSV = "node,parent,skeleton,x,y,z\n5,-1,b,84,8,420\n1,-1,a,80,0,420\n3,1,a,88,0,420\n7,5,b,84,8,460\n"


def test_files_of_skeletons(tmp_path: Path) -> None:
    (tmp_path / "a.swc").write_text(SWC)
    (tmp_path / "b.swc").write_text(SWC.replace("420", "500"))
    (tmp_path / "nodes.csv").write_text(CSV)
    folder = read_skeletons(str(tmp_path))
    assert folder.keys() == {1, 2}
    np.testing.assert_array_equal(folder[1].nodes, [[420, 0, 80], [420, 0, 88], [420, 8, 84]])
    assert sorted(folder[2].lengths) == pytest.approx([8, 80**0.5])
    assert read_skeletons(str(tmp_path / "b.swc"))[1].nodes[0, 0] == 500
    table = read_skeletons(str(tmp_path / "nodes.csv"))
    assert [list(table[number].lengths) for number in (1, 2)] == [[8], [40]]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.swc", "1 2 3\n", r"a\.swc, line 1: expected numbers for node, parent, z, y and x"),
        ("a.swc", SWC + "9 2 nan 0 0 1 1\n", "line 5: expected numbers"),
        ("a.swc", SWC + "9 2 0 0 0 1 4\n", "the parent of each node, found no node 4"),
        ("a.swc", SWC + SWC, "each node once, found 3 numbers again"),
        ("a.csv", "node,parent,x,y,z\n", "expected the columns skeleton, node, .* found no skeleton"),
        ("a.csv", CSV + "8,far,b,1,1,1\n", "line 6: expected numbers .* found '8 far 1 1 1'"),
        ("folder", None, "expected SWC files in this folder, found none"),
        ("nothing.swc", None, "found what cannot be read: .*No such file"),
    ],
)
def test_files_of_no_skeletons_are_a_sentence(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_skeletons(str(tmp_path / name))
