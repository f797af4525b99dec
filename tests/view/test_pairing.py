"""Which segment is which neuron, on drawings small enough to be judged by eye."""

import numpy as np

from emsam_jax.view.exhibit import Verdict, pair

TRUTH = np.array([[1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 0], [3, 3, 3, 3, 3, 3]])
LABELS = np.array([[7, 7, 7, 7, 8, 8], [9, 9, 9, 9, 7, 9], [9, 9, 9, 0, 6, 6]])


def test_verdicts_as_drawn():
    labelled = np.ones(TRUTH.shape, bool)
    labelled[2, 5] = False
    verdict = pair(LABELS, TRUTH, labelled).judge(LABELS, TRUTH, labelled)
    names = {Verdict.RIGHT: ".", Verdict.SPLIT: "s", Verdict.MERGE: "m", Verdict.BOTH: "b"}
    names |= {Verdict.UNSEGMENTED: "0", Verdict.UNKNOWN: " "}
    drawn = ["".join(names[Verdict(value)] for value in row) for row in verdict]
    # Of neuron 1 a piece is cut off, and of neuron 2 a voxel went to 7, which is mostly neuron 1. Most of neuron 3 is
    # in 9, which is mostly neuron 2; a voxel is cut off from there.
    assert drawn == ["....ss", "....b ", "mmm0s "]
    assert pair(LABELS, TRUTH, labelled).segment_of(np.array([1, 2])).tolist() == [7, 9]


def test_a_neurons_main_segment_has_its_id_and_no_other_segment_has():
    matched = pair(LABELS, TRUTH, np.ones(TRUTH.shape, bool)).matched(LABELS)
    assert matched[0].tolist()[:4] == [1, 1, 1, 1]
    assert matched[1].tolist()[:4] == [2, 2, 2, 2]
    assert matched[2, 3] == 0
    assert (matched[0, 4:] > TRUTH.max()).all()


def test_perfect_labels_are_right_everywhere_and_unknown_ids_have_no_partner():
    pairing = pair(TRUTH + 10, TRUTH, np.ones(TRUTH.shape, bool))
    verdict = pairing.judge(TRUTH + 10, TRUTH, np.ones(TRUTH.shape, bool))
    assert set(verdict[TRUTH > 0].tolist()) == {Verdict.RIGHT}
    assert set(verdict[TRUTH == 0].tolist()) == {Verdict.UNKNOWN}
    assert pairing.truth_of(np.array([99])).tolist() == [0]
