"""Objects made whole and in blocks, judged by what they are drawn as and read back by other tools."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from emsam_jax.errors import UserError
from emsam_jax.objects import Tracing, make_objects, plan_objects
from emsam_jax.objects.catalogue import read_group
from emsam_jax.objects.pieces import read_masks
from emsam_jax.objects.surface import mesh_pieces, weld
from emsam_jax.scores import read_skeletons
from emsam_jax.volumes import create_volume
from tests.objects import tissue_of_shapes as tissue

with warnings.catch_warnings():  # what its own dependencies say when imported
    warnings.simplefilter("ignore")
    from cloudvolume import CloudVolume

WHOLE, BLOCK = tissue.SHAPE, (13, 50, 30)


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("labels") / "labels"
    volume = create_volume(place, tissue.SHAPE, np.uint64, tissue.SIZE, offset_zyx=tissue.OFFSET, format="precomputed")
    volume[...] = tissue.draw_shapes()
    return str(place)


@pytest.fixture(scope="module")
def made(labels: str) -> Path:
    out = Path(labels).parent / "objects"
    assert make_objects(plan_objects(labels, str(out), block=BLOCK), ids=[tissue.BALL, tissue.CUT], parquet=True) == 4
    return out


def test_blocks_leave_no_trace(labels: str, made: Path, tmp_path: Path):
    make_objects(plan_objects(labels, str(tmp_path / "whole"), block=WHOLE))
    assert tissue.shapes_in(made) == tissue.shapes_in(tmp_path / "whole")
    assert len(list((made / "pieces").glob("*.masks"))) == 48


def test_the_table_says_what_was_drawn(made: Path):
    drawn, rows = tissue.draw_shapes(), tissue.read_rows(made)
    size, offset = np.array(tissue.SIZE), np.array(tissue.OFFSET)
    assert sorted(rows) == np.unique(drawn)[1:].tolist()
    for name, row in rows.items():
        places = np.argwhere(drawn == name)
        assert row["voxels"] == len(places)
        assert row["volume_nm3"] == len(places) * size.prod()
        np.testing.assert_allclose([row[f"{a}_start_nm"] for a in "zyx"], places.min(0) * size + offset)
        np.testing.assert_allclose([row[f"{a}_stop_nm"] for a in "zyx"], (places.max(0) + 1) * size + offset)
    ball, tube = rows[tissue.BALL], rows[tissue.TUBE]
    assert 1 < ball["surface_nm2"] / (4 * np.pi * tissue.RADIUS**2) < 1.25  # stairs are longer than slopes
    assert tube["skeleton_nm"] == pytest.approx(tissue.LENGTH, rel=0.2)  # from voxel to voxel
    assert tube["largest_thickness_nm"] == pytest.approx(200, abs=40)
    assert 100 < tube["mean_thickness_nm"] <= tube["largest_thickness_nm"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_tools_read_it(labels: str, made: Path):

    volume: Any = CloudVolume(f"file://{labels}", mesh_dir="../objects/meshes", skel_dir="../objects/skeletons")
    rows = tissue.read_rows(made)
    for name, row in rows.items():
        mesh = volume.mesh.get(name)
        mesh = mesh[name] if isinstance(mesh, dict) else mesh
        assert tissue.count_uses(mesh.faces) == {2}
        assert tissue.area_of(mesh.vertices, mesh.faces) == pytest.approx(row["surface_nm2"], rel=1e-5)
        low, high = (np.array([row[f"{a}_{end}_nm"] for a in "xyz"]) for end in ("start", "stop"))
        np.testing.assert_allclose([mesh.vertices.min(0), mesh.vertices.max(0)], [low, high])
        if name in (tissue.BALL, tissue.TUBE, tissue.CUT):
            found = tissue.volume_of(mesh.vertices - low.astype(np.float32), mesh.faces)
            assert found == pytest.approx(row["volume_nm3"], rel=0.02)
        skeleton = volume.skeleton.get(name)
        assert skeleton.cable_length() == pytest.approx(row["skeleton_nm"], rel=1e-5)
        assert 2 * skeleton.radii.max() == pytest.approx(row["largest_thickness_nm"])
        # Each node is the centre of a voxel of the object.
        size, offset = np.array(tissue.SIZE), np.array(tissue.OFFSET)
        voxels = (skeleton.vertices[:, ::-1] - offset) / size - 0.5
        np.testing.assert_allclose(voxels, np.rint(voxels), atol=1e-3)
        assert (tissue.draw_shapes()[tuple(np.rint(voxels).astype(int).T)] == name).all()
    table = parquet.read_table(made / "objects.parquet").to_pydict()
    assert dict(zip(table["id"], table["surface_nm2"], strict=True)) == {n: r["surface_nm2"] for n, r in rows.items()}
    shown = json.loads((made / "segments/info").read_text())["inline"]
    assert shown["ids"] == list(map(str, rows))


def test_single_objects_are_files(labels: str, made: Path):
    rows = tissue.read_rows(made)
    (skeleton,) = read_skeletons(str(made / f"swc/{tissue.BALL}.swc")).values()
    assert skeleton.lengths.sum() == pytest.approx(rows[tissue.BALL]["skeleton_nm"], rel=1e-5)
    lines = [line.split() for line in (made / f"obj/{tissue.CUT}.obj").read_text().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    faces = np.array([line[1:] for line in lines if line[0] == "f"], int) - 1
    assert tissue.count_uses(faces) == {2}
    assert tissue.area_of(vertices, faces) == pytest.approx(rows[tissue.CUT]["surface_nm2"], rel=1e-5)
    # Other ids later: their files alone are added.
    before = tissue.shapes_in(made)
    make_objects(plan_objects(labels, str(made), block=BLOCK), ids=[tissue.TUBE], mesh_format="ply")
    assert tissue.shapes_in(made) == before
    header, _, content = (made / f"ply/{tissue.TUBE}.ply").read_bytes().partition(b"end_header\n")
    counts = [int(line.split()[-1]) for line in header.decode().splitlines() if line.startswith("element")]
    assert len(content) == 12 * counts[0] + 13 * counts[1]


def test_noise_is_closed_too(tmp_path: Path):
    """Voxels that meet at edges and corners in all ways."""
    volume = create_volume(tmp_path / "noise.zarr", (9, 9, 9), np.uint32, (10, 10, 10))
    volume[...] = noise = np.random.default_rng(0).integers(0, 3, volume.shape, np.uint32)
    for block in ((9, 9, 9), (5, 4, 7)):
        out = tmp_path / f"out{block[0]}"
        job = plan_objects(volume.url, str(out), block=block, background=(0, 2))
        assert make_objects(job, ids=[1]) == 1
        lines = [line.split() for line in (out / "obj/1.obj").read_text().splitlines()]
        assert tissue.count_uses(np.array([line[1:] for line in lines if line[0] == "f"], int)) == {2}
        assert tissue.read_rows(out)[1]["voxels"] == (noise == 1).sum()
    assert tissue.shapes_in(tmp_path / "out9") == tissue.shapes_in(tmp_path / "out5")


def test_a_mesh_in_parts_is_closed(labels: str, made: Path):
    job = plan_objects(labels, str(made), block=BLOCK)
    (pieces,) = (pieces for group in job.plan_groups(4) for row, pieces in read_group(job, group) if row["id"] == 3)
    (whole,) = mesh_pieces(read_masks(job.out, pieces))
    parts = list(mesh_pieces(read_masks(job.out, pieces), most_faces=1000))
    assert len(parts) > 3
    np.testing.assert_array_equal(weld(parts).vertices, whole.vertices)
    np.testing.assert_array_equal(weld(parts).faces, whole.faces)


def test_a_large_object_is_traced_coarsely_and_as_long(labels: str, made: Path, tmp_path: Path):
    job = plan_objects(labels, str(tmp_path / "out"), tracing=Tracing(most_voxels=1 << 12))
    make_objects(job)
    fine, coarse = tissue.read_rows(made)[tissue.TUBE], tissue.read_rows(tmp_path / "out")[tissue.TUBE]
    assert coarse["skeleton_nm"] == pytest.approx(fine["skeleton_nm"], rel=0.1)
    assert coarse["surface_nm2"] == fine["surface_nm2"]


def test_what_is_damaged_is_made_again(labels: str, made: Path, tmp_path: Path):
    before = tissue.shapes_in(made)
    for name in (f"meshes/{tissue.BALL}:0:0", f"skeletons/{tissue.TUBE}", "objects.csv", "pieces/0-0-0.masks"):
        place = made / name
        place.write_bytes(place.read_bytes()[:-3])
    make_objects(plan_objects(labels, str(made), block=BLOCK))
    assert tissue.shapes_in(made) == before


def test_mistakes_are_sentences(labels: str, made: Path, tmp_path: Path):
    other = create_volume(tmp_path / "other.zarr", (8, 8, 8), np.uint8, (10, 10, 10))
    with pytest.raises(UserError, match=r"expected objects, found none: every voxel is background"):
        make_objects(plan_objects(other.url, str(tmp_path / "none")))
    other[...] = np.ones((8, 8, 8), np.uint8)
    with pytest.raises(UserError, match=r"--ids: expected objects of .*, found no 5, 9 among its 1 ids from 1 to 1"):
        make_objects(plan_objects(other.url, str(tmp_path / "one")), ids=[9, 1, 5])
    with pytest.raises(UserError, match=r"comes from another run, with labels '.*' there, '.*' here"):
        make_objects(plan_objects(other.url, str(made)))
    with pytest.raises(UserError, match=r"constant 300\.0 there, 100\.0 here"):
        make_objects(plan_objects(labels, str(made), block=BLOCK, tracing=Tracing(constant=100.0)))
    with pytest.raises(UserError, match="expected a destination apart from the source"):
        make_objects(plan_objects(labels, f"{labels}/objects"))
    raw = create_volume(tmp_path / "raw.zarr", (8, 8, 8), np.float32, (10, 10, 10))
    with pytest.raises(UserError, match=r"expected labels, whole numbers z, y, x; found float32"):
        plan_objects(raw.url, str(tmp_path / "raw"))
    np.save(tmp_path / "sizeless.npy", np.ones((8, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"give --voxel_size=z,y,x"):
        plan_objects(str(tmp_path / "sizeless.npy"), str(tmp_path / "sizeless"))
