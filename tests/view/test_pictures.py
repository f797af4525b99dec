"""Colours, surfaces and panels against what was drawn."""

import base64
import io

import numpy as np
from PIL import Image

from emsam_jax.view import Exhibit, illustrate
from emsam_jax.view.colours import MAIN, MERGE, PIECES, SPLIT, Colouring
from emsam_jax.view.images import Picture, draw_surface


def decoded(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))))


def test_neighbours_look_different_and_an_id_looks_the_same_everywhere():
    cells = np.arange(1, 401).reshape(20, 20)
    shown = np.kron(cells, np.ones((3, 3), np.int64))
    colouring = Colouring([shown, shown.T])
    colours = colouring(cells).astype(np.int64)
    for axis in (0, 1):
        assert np.linalg.norm(np.diff(colours, axis=axis), axis=-1).min() > 40
    assert (colouring(shown)[::3, ::3] == colours).all()
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 20
    assert colouring(np.array([12345])).shape == (1, 3)


def test_a_surface_is_seen_from_its_broad_side_in_the_colours_of_its_pieces():
    pieces = np.zeros((20, 4, 30), np.uint8)
    pieces[2:18, 1:3, :] = 1
    pieces[2:18, 1:3, 20:] = 2
    colours = np.array([(0, 0, 0), MAIN, PIECES[0]], np.uint8)
    drawn = draw_surface(pieces, colours, (20.0, 10.0, 10.0), side=120)
    assert drawn.shape == (120, 90, 4)  # along y: 400 nm by 300 nm
    inside = drawn[20:100, :, 3] > 250
    assert inside.mean() > 0.97
    assert (drawn[:8, :, 3] == 0).all()
    left, right = (np.median(drawn[30:90, at, :3].reshape(-1, 3), axis=0) for at in (slice(0, 50), slice(70, 90)))
    assert np.ptp(left) < 20 < np.ptp(right)
    assert right.argmax() == np.argmax(PIECES[0])


def make_exhibit() -> Exhibit:
    """Two neurons side by side, in y; the upper one cut in two in x, the lower one joined to a third."""
    truth = np.ones((6, 60, 60), np.uint16)
    truth[:, 30:] = 2
    truth[:, 50:] = 3
    labels = np.full(truth.shape, 5, np.uint64)
    labels[:, :30, 40:] = 6
    labels[:, 30:] = 7
    rows = {"bits": 0.3, "voxels": 1}
    everywhere = {"box_zyx": [[0, 6], [0, 30], [0, 60]], "at_zyx": [3, 10, 10]}
    below = {"box_zyx": [[0, 6], [30, 60], [0, 60]], "at_zyx": [3, 40, 10]}
    worst = {"splits": [{"id": 1, **rows, **everywhere}], "merges": [{"id": 7, **rows, **below, "bits": 0.4}]}
    labelled = np.ones(truth.shape, bool)
    raw = np.random.default_rng(0).random(truth.shape).astype(np.float32)
    return Exhibit(raw, labels, truth, labelled, None, worst, (40.0, 8.0, 8.0), (100, 10, 20))


def test_errors_are_inked_where_they_are_and_objects_are_named():
    drawn = illustrate(make_exhibit(), sections=2)
    assert [section.title for section in drawn.sections] == ["z 101", "z 104"]
    panels = {panel.title: decoded(panel.picture).astype(np.int64) for panel in drawn.sections[0].panels}
    assert list(panels) == ["raw", "segmentation", "truth", "errors"]
    side = panels["errors"].shape[0]
    places = {"right": (0.25, 0.3), "split": (0.25, 0.85), "merge": (0.92, 0.5)}
    corners = {name: (int(y * side) - 9, int(x * side) - 9) for name, (y, x) in places.items()}
    at = {name: panels["errors"][y : y + 18, x : x + 18].mean((0, 1)) for name, (y, x) in corners.items()}
    assert np.ptp(at["right"]) < 12
    assert np.abs(at["split"] - SPLIT).max() < 70
    assert np.abs(at["merge"] - MERGE).max() < 70
    main = slice(int(0.1 * side), int(0.4 * side))
    same = np.abs(panels["segmentation"][main, main].mean((0, 1)) - panels["truth"][main, main].mean((0, 1)))
    assert same.max() < 3

    merge, split = drawn.worst
    assert (merge.kind, merge.name, merge.text) == (
        "merges",
        "segment 7",
        "holds 2 neurons: 67% of neuron 2, 33% of neuron 3",
    )
    assert (split.kind, split.name, split.text) == (
        "splits",
        "neuron 1",
        "in 2 pieces: 67% in segment 5, 33% in segment 6",
    )
    assert split.place.startswith("z 1")
    assert 40 <= int(split.place.rpartition(" ")[2]) - 20 < 60  # where the lesser piece is, in voxels of the raw
