"""The viewer without a browser: what is served of volumes, its state, links, and mistakes."""

import contextlib
import http.server
import io
import socket
import threading
import webbrowser
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import neuroglancer
import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.segmentation import Recipe, append_edit, ideal_affinities, in_force, new_edit, read_edits
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.view.live import Scene, link_to, open_levels, scene_of, serve
from emsam_jax.view.live.arrangement import arrange, source_of
from emsam_jax.view.live.keys import Corrections
from emsam_jax.view.live.served import Role, ServedVolume
from emsam_jax.view.live.session import find_browser, serving, tell_slow
from emsam_jax.volumes import create_array, create_volume, open_volume, plan_layout, write_image_metadata
from emsam_jax.volumes.pyramid import coarsen

SIZE, OFFSET = (40.0, 4.0, 4.0), (80.0, 6.0, 0.0)


@pytest.fixture
def ids(tmp_path: Path) -> np.ndarray:
    """Labels with a pyramid at labels.zarr, whose levels have ids of their own."""
    finest = plan_layout(tmp_path / "labels.zarr", (4, 24, 20), np.uint32, SIZE, offset_zyx=OFFSET)
    coarse = coarsen(finest)
    assert coarse.shape == (4, 12, 10)
    values = np.arange(4 * 24 * 20, dtype=np.uint32).reshape(4, 24, 20)
    create_array(finest)[...] = values
    create_array(coarse)[...] = 10_000 + np.arange(4 * 12 * 10, dtype=np.uint32).reshape(4, 12, 10)
    write_image_metadata(finest, coarse)
    return values


def served(volume: ServedVolume, factor: str, start: str, end: str) -> np.ndarray:
    """What the client gets."""
    first, last = (np.fromstring(corner, int, sep=",") for corner in (start, end))
    content, _ = volume.get_encoded_subvolume("npz", first, last, factor)
    return np.load(io.BytesIO(zlib.decompress(content)))


def open_served(path: Path, role: Role) -> ServedVolume:
    channel = "all" if role == "affinities" else None
    return ServedVolume(open_levels(str(path), averaged=role != "ids", channel=channel), role)


def test_chunks_come_from_the_level_that_fits(tmp_path: Path, ids):
    volume = open_served(tmp_path / "labels.zarr", "ids")
    assert volume.info()["maxDownsampling"] is None
    np.testing.assert_array_equal(served(volume, "1,1,1", "1,2,3", "3,9,20"), ids[1:3, 2:9, 3:20])
    coarse = 10_000 + np.arange(4 * 12 * 10).reshape(4, 12, 10)
    np.testing.assert_array_equal(served(volume, "1,2,2", "0,0,0", "4,12,10"), coarse)
    np.testing.assert_array_equal(served(volume, "2,4,4", "0,0,0", "2,6,5"), coarse[::2, ::2, ::2])
    np.testing.assert_array_equal(served(volume, "1,1,2", "0,0,0", "4,24,10"), ids[:, :, ::2])
    with pytest.raises(ValueError, match="Expected a chunk"):
        served(volume, "1,1,1", "0,0,0", "4000,4000,4000")


def test_grey_values_are_averaged_and_affinities_are_bytes_of_three_channels(tmp_path: Path):
    raw = np.random.default_rng(0).integers(0, 4000, (4, 6, 6)).astype(np.uint16)
    create_volume(tmp_path / "raw.zarr", raw.shape, raw.dtype, SIZE)[...] = raw
    volume = open_served(tmp_path / "raw.zarr", "grey")
    assert (volume.info()["dataType"], volume.info()["maxDownsampling"]) == ("uint16", 64)
    mean = raw.reshape(4, 3, 2, 3, 2).mean((2, 4))
    assert np.abs(served(volume, "1,2,2", "0,0,0", "4,3,3") - mean).max() <= 0.5
    halves = np.random.default_rng(1).random((6, 4, 6, 6)).astype(np.float16)
    create_volume(tmp_path / "affinities.zarr", halves.shape, halves.dtype, SIZE)[...] = halves
    volume = open_served(tmp_path / "affinities.zarr", "affinities")
    assert (volume.info()["dataType"], list(volume.info()["shape"])) == ("uint8", [3, 4, 6, 6])
    found = served(volume, "1,1,1,1", "0,0,0,0", "3,4,6,6")
    assert np.abs(found / 255 - halves[:3]).max() < 0.003


def test_layers_lie_where_they_are_in_the_world_and_begin_at_an_object(tmp_path: Path, ids, monkeypatch):
    monkeypatch.setattr("emsam_jax.view.live.scene._SEARCHED", (1, 8, 4))
    levels = open_levels(str(tmp_path / "labels.zarr"), averaged=False)
    cells = Scene("cells", segmentation=levels)
    number = int(ids[2, 10, 7])
    state = arrange(cells, {"segmentation": "somewhere"}, cells.find_object(number), number).to_json()
    assert state["dimensions"] == {"x": [4e-9, "m"], "y": [4e-9, "m"], "z": [4e-8, "m"]}
    np.testing.assert_allclose(state["position"], [7.5, 10.5 + 1.5, 2.5 + 2])
    (layer,) = state["layers"]
    assert layer["segments"] == [str(number)]
    named = open_levels(str(tmp_path / "labels.zarr"), averaged=False, voxel_size_zyx=(8, 8, 8), offset_zyx=(0, 0, 16))
    assert (named.finest.voxel_size_zyx, named.finest.offset_zyx) == ((8, 8, 8), (0, 0, 16))
    assert named.at((1, 2, 2)).voxel_size_zyx == (8, 16, 16)
    assert named.at((1, 2, 2)).offset_zyx == (0, 0, 16)


def test_a_layer_lies_at_the_volumes_offset(tmp_path: Path, ids):
    volume = open_volume(tmp_path / "labels.zarr")
    transform = source_of("python://anything", volume).to_json()["transform"]
    assert transform["matrix"] == [[1, 0, 0, 2], [0, 1, 0, 1.5], [0, 0, 1, 0]]
    assert transform["outputDimensions"] == {"z": [4e-8, "m"], "y": [4e-9, "m"], "x": [4e-9, "m"]}


def test_keys_write_places_in_the_world_and_undo_their_authors_own(tmp_path: Path, ids):
    """Keys as the viewer's server hands them over; a pointer's place is in voxels x, y, z of the world."""
    path = tmp_path / "edits.jsonl"
    append_edit(path, new_edit("done", [(100, 10, 10)], "bob"))
    scene = Scene("cells", segmentation=open_levels(str(tmp_path / "labels.zarr"), averaged=False))
    with serving(scene) as session:
        Corrections(session.viewer, str(path), "ada")

        def press(name: str, *xyz: float) -> None:
            seen = {"mousePosition": xyz or None, "viewerState": session.viewer.state.to_json()}
            session.viewer.actions.invoke(f"emsam-{name}", seen)

        press("join", 3.5, 2.5, 2.5)
        press("join", 9.5, 6.5, 3.5)
        press("done", 5.5, 4.5, 2.5)
        bobs, join, done = read_edits(path)
        assert [(edit.kind, edit.author) for edit in (join, done)] == [("join", "ada"), ("done", "ada")]
        np.testing.assert_allclose(join.points_zyx_nm, [(100, 10, 14), (140, 26, 38)])
        np.testing.assert_allclose(done.points_zyx_nm, [(100, 18, 22)])
        press("join", 1.5, 1.5, 1.5)
        press("undo")  # forgets the first place
        assert len(read_edits(path)) == 3
        press("undo")
        assert in_force(read_edits(path)) == (bobs, join)
        point, line = session.viewer.state.layers["edits"].annotations
        assert (point.id, line.id) == (bobs.id, join.id)
        np.testing.assert_allclose(
            [point.point, line.point_a, line.point_b], [(10, 10, 100), (14, 10, 100), (38, 26, 140)]
        )
        press("undo")
        press("undo")  # none of ada's is left
        assert in_force(read_edits(path)) == (bobs,)


def test_a_segmentation_is_shown_with_its_affinities_and_the_queue(tmp_path: Path):
    truth = 1 + np.indices((6, 24, 24)).sum(0).astype(np.uint64) // 12
    ideal = ideal_affinities(truth)
    stored = create_volume(tmp_path / "affinities.zarr", ideal.shape, np.float32, SIZE, offset_zyx=OFFSET)
    stored[...] = np.clip(ideal + np.random.default_rng(0).normal(0, 0.2, ideal.shape), 0, 1).astype(np.float32)
    out = tmp_path / "neurons.zarr"
    segment_blockwise(open_volume(stored.url, channel="all"), out, Recipe(threshold=0.5), queue=20)
    scene = scene_of(str(out))
    assert list(scene.volumes) == ["affinities", "segmentation"]
    assert scene.main.offset_zyx == OFFSET
    (note,) = scene.notes
    assert "--raw shows the raw volume" in note
    head, first, *_ = (out / "queue.csv").read_text().splitlines()
    row = dict(zip(head.split(","), first.split(","), strict=True))
    place = scene.places["uncertain merges"][0]
    assert place.at_zyx_nm == tuple(float(row[name]) for name in ("z_nm", "y_nm", "x_nm"))
    assert set(place.segments) == {int(row["object_a"]), int(row["object_b"])}
    (out / "queue.csv").write_text(head.replace("z_nm", "z") + "\n" + first + "\n")
    with pytest.raises(UserError, match=r"queue\.csv: expected the columns z_nm, .* found a row without: 'z_nm'"):
        scene_of(str(out))


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_link_holds_the_whole_state(tmp_path: Path, ids):
    with bucket(tmp_path) as url:
        link = link_to(Scene("cells", segmentation=open_levels(f"{url}/labels.zarr", averaged=False)))
    assert link.startswith("https://neuroglancer-demo.appspot.com#!")
    state = neuroglancer.parse_url(link)
    assert state.layers["segmentation"].source[0].url == f"zarr3://{url}/labels.zarr"
    np.testing.assert_allclose(state.position, [10.5, 12.5 + 1.5, 2.5 + 2])
    with pytest.raises(UserError, match=r"--link: expected volumes in buckets .*labels\.zarr; leave --link out"):
        link_to(Scene("cells", segmentation=open_levels(str(tmp_path / "labels.zarr"), averaged=False)))


def test_mistakes_are_answered_in_a_sentence(tmp_path: Path, ids, monkeypatch):
    scene = Scene("cells", segmentation=open_levels(str(tmp_path / "labels.zarr"), averaged=False))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port={port}: expected a free port, found one that is taken"):
            serve(scene, port=port)
    with pytest.raises(UserError, match=r"--object: expected an id of .*, found 99999, which no voxel of it has"):
        serve(scene, object_id=99999)
    with pytest.raises(UserError, match="--edits: expected a file in a folder of this machine, found gs://a/b"):
        serve(scene, edits="gs://a/b")
    with pytest.raises(UserError, match=r"expected results of emsam eval .* or labels of emsam segment, found neither"):
        scene_of(str(tmp_path))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/scores.json").write_text('{"data": {')
    with pytest.raises(UserError, match=r"torn/scores\.json: expected JSON, found b'{\"data\": {'"):
        scene_of(str(tmp_path / "torn"))
    with pytest.raises(UserError, match="found no volume there to show"):
        Scene("nothing")
    create_volume(tmp_path / "far.zarr", (4, 8, 8), np.uint8, SIZE, offset_zyx=(1e6, 0, 0))
    with pytest.raises(UserError, match="they share no voxel"):
        Scene("apart", raw=open_levels(str(tmp_path / "far.zarr"), averaged=True), segmentation=scene.segmentation)
    large = create_volume(tmp_path / "large.zarr", (512, 1024, 1024), np.uint8, SIZE)
    (note,) = tell_slow(Scene("large", raw=open_levels(large.url, averaged=True)))
    assert note == f"{large.url} has no pyramid: zooming out will be slow; emsam ingest makes a copy with one."
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    with pytest.raises(UserError, match="--browser: expected a browser on this machine, found none"):
        find_browser()
