"""The dataset as its specification has it, and as webknossos's own library reads and writes it."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.exports import export_labels
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.volumes import create_volume, open_volume
from tests.exports.conftest import Run, read_by_its_own
from tests.segmentation.cells import AFFINITIES, IN_3D

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import zarr

NAME = "agglomerate_view_waterz-0.5"


@pytest.fixture(scope="module")
def dataset(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("webknossos") / "neurons"
    assert "segments in" in export_labels("webknossos", str(run.url), str(out))
    return out


def arrays_of(attachment: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(zarr.open_array(path, mode="r")) for path in attachment.iterdir() if path.is_dir()}


def test_the_attachment_is_the_lookup(run: Run, dataset: Path):
    layer = open_volume(dataset / "fragments")
    assert (layer.dtype, layer.offset_zyx) == (np.uint32, (0, 0, 0))
    padded = layer[...]
    assert not any(padded[part].any() for part in (np.s_[:2], np.s_[:, :2], np.s_[:, :, :2]))
    segments, found = padded[2:, 2:, 2:], arrays_of(dataset / "fragments/agglomerates" / NAME)
    kept = [piece for piece, label in sorted(run.lookup.items()) if label]
    numbers = {piece: number for number, piece in enumerate(kept, 1)}
    expected = np.vectorize(lambda piece: numbers.get(int(piece), 0))(run.pieces)
    np.testing.assert_array_equal(segments, expected)
    assert found["segment_to_agglomerate"].tolist() == [0, *(run.lookup[piece] for piece in kept)]
    np.testing.assert_array_equal(found["segment_to_agglomerate"][segments], run.labels)

    x, y, z = found["agglomerate_to_positions"].T
    np.testing.assert_array_equal(padded[z, y, x], found["agglomerate_to_segments"])
    edges = {}
    begins, of_edges = found["agglomerate_to_segments_offsets"], found["agglomerate_to_edges_offsets"]
    for agglomerate in range(1, len(begins) - 1):
        own = found["agglomerate_to_segments"][begins[agglomerate] : begins[agglomerate + 1]]
        for row in range(of_edges[agglomerate], of_edges[agglomerate + 1]):
            u, v = (kept[own[end] - 1] for end in found["agglomerate_to_edges"][row])
            edges[u, v] = float(found["agglomerate_to_affinities"][row])
    inside = {pair for pair in run.contacts if run.lookup[pair[0]] == run.lookup[pair[1]] > 0}
    assert edges == pytest.approx({pair: 1 if pair in run.one else np.mean(run.contacts[pair]) for pair in inside})


# `create` is what the library makes of a graph: its connected components, by its own order.
BY_ITS_LIBRARY = """
import sys
import numpy as np
import webknossos

out = sys.argv[2]
layer = webknossos.Dataset.open(sys.argv[1]).get_segmentation_layer("fragments")
(attachment,) = layer.attachments.agglomerates
assert layer.get_mag(1).bounding_box == layer.bounding_box
np.savez(
    f"{out}/read.npz", voxels=layer.get_mag(1).read(), size=layer.dataset.voxel_size,
    begin=layer.bounding_box.topleft, largest=layer.largest_segment_id,
)
webknossos.AgglomerateAttachment.create(f"{out}/created", attachment.to_graph(), segmentation_dtype=layer.dtype)
"""


@pytest.mark.slow
def test_its_own_library_reads_it_and_would_write_the_same(run: Run, dataset: Path, tmp_path: Path):
    read_by_its_own(BY_ITS_LIBRARY, dataset, tmp_path)
    read = np.load(tmp_path / "read.npz")
    ours, created = (arrays_of(path) for path in (dataset / "fragments/agglomerates" / NAME, tmp_path / "created"))
    assert ours.keys() == created.keys()
    for name, values in created.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
        assert ours[name].dtype == values.dtype
    np.testing.assert_array_equal(ours["segment_to_agglomerate"][read["voxels"]], run.labels)
    assert (read["size"].tolist(), read["begin"].tolist()) == ([4, 4, 40], [2, 2, 2])
    assert read["largest"] == len(ours["agglomerate_to_segments"])


def test_coarser_mags_and_a_stop_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without edges in it, an attachment is still one; what was copied before the stop is kept."""
    affinities = np.zeros((3, 2, 20, 600), np.float32)
    affinities[:, :, :, :560] = 1
    create_volume(tmp_path / "a.zarr", affinities.shape, "float32", (40, 4, 4))[...] = affinities
    recipe, volume = Recipe("components", 0.5), open_volume(tmp_path / "a.zarr", channel="all")
    segment_blockwise(volume, tmp_path / "n.zarr", recipe, (2, 20, 256))
    labels, out = str(tmp_path / "n.zarr"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("emsam_jax.exports.webknossos.collect", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_labels("webknossos", labels, str(out))
    assert not (out / "datasource-properties.json").exists()
    copied = {path: path.stat().st_mtime_ns for path in (out / "fragments").glob("*/c/**/*") if path.is_file()}
    export_labels("webknossos", labels, str(out))
    assert copied == {path: path.stat().st_mtime_ns for path in copied}
    (layer,) = json.loads((out / "datasource-properties.json").read_text())["dataLayers"]
    assert [mag["mag"] for mag in layer["mags"]] == [[1, 1, 1], [2, 2, 1], [4, 4, 1]][: len(layer["mags"])]
    assert len(layer["mags"]) > 1
    assert (layer["boundingBox"]["width"], layer["boundingBox"]["depth"], layer["elementClass"]) == (600, 2, "uint32")
    found = arrays_of(out / "fragments/agglomerates/agglomerate_view_components-0.5")
    assert found["agglomerate_to_edges"].shape[1] == 2

    segment_blockwise(volume, tmp_path / "m.zarr", Recipe("components", 0.4), (2, 20, 256))
    with pytest.raises(UserError, match="comes from another run"):
        export_labels("webknossos", str(tmp_path / "m.zarr"), str(out))


def test_what_cannot_be_exported_is_a_sentence(run: Run, tmp_path: Path):
    create_volume(tmp_path / "a.zarr", (3, 8, 8, 8), "float32", (40, 4, 4), offset_zyx=(-80, 2, 0))
    for problem, labels in (("expected labels of emsam segment, found no ledger", tmp_path / "a.zarr"),):
        with pytest.raises(UserError, match=problem):
            export_labels("webknossos", str(labels), str(tmp_path / "out"))
    create_volume(tmp_path / "b.zarr", (3, 8, 8, 8), "float32", (40, 4, 4), offset_zyx=(0, 2, 0))[...] = AFFINITIES[
        :, :8, :8, :8
    ]
    volume = open_volume(tmp_path / "b.zarr", channel="all")
    segment_blockwise(volume, tmp_path / "n.zarr", Recipe("waterz", 0.5, IN_3D), (8, 8, 8))
    with pytest.raises(UserError, match=r"an offset of whole voxels \(40.0, 4.0, 4.0\) nm from 0, found \(0.0, 2.0"):
        export_labels("webknossos", str(tmp_path / "n.zarr"), str(tmp_path / "out"))
    with pytest.raises(UserError, match="apart from the source"):
        export_labels("webknossos", str(run.url), str(run.url / "out"))
    (tmp_path / "n.zarr/ledger/labels/done/0-0-0").unlink()
    with pytest.raises(UserError, match="found a run that was stopped; call emsam segment again"):
        export_labels("webknossos", str(tmp_path / "n.zarr"), str(tmp_path / "out"))
