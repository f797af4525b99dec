"""Parts of a split that hold the same voxels are found, whatever their file is called, and no others."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.volumes import (
    Box,
    Specimen,
    create_volume,
    open_declared,
    open_shared,
    open_volume,
    part_from,
    part_of,
    place_of,
    refuse_overlap,
)
from tests.volumes import writers

SHAPE = (12, 20, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    values = np.zeros(SHAPE, np.uint8)
    with h5py.File(folder / "em.h5", "w") as file:
        for name in ("raw", "labels", "other"):
            file[name] = values
    with h5py.File(folder / "one.h5", "w") as file:
        file["main"] = values
    create_volume(folder / "em.zarr", SHAPE, "uint8", (40, 8, 8))[...] = values
    (folder / "link.h5").symlink_to("em.h5")
    (folder / "linked").symlink_to(folder, target_is_directory=True)
    return folder


def part(role, raw: str, roi: str = "", **more):
    return part_of(role, open_declared(DeclaredVolume(name=f"{role} {roi}", raw=raw, roi=roi, **more)))


def test_boxes_overlap_where_they_share_a_voxel(folder):
    rng, raw = np.random.default_rng(0), open_volume(f"{folder}/em.zarr")
    found = []
    for _ in range(60):
        boxes = []
        for _ in range(2):
            edges = [sorted(rng.choice(side + 1, 2, replace=False).tolist()) for side in SHAPE]
            start, stop = zip(*edges, strict=True)
            boxes.append(Box(start, stop))
        counts = np.zeros(SHAPE, int)
        for box in boxes:
            counts[box.slices] += 1
        one, other = (Specimen(raw, roi=str(box)) for box in boxes)
        parts = [part_of("training", one), part_of("test", other)]
        found.append(bool(refuse_overlap(parts, allowed=True)))
        assert found[-1] == (counts == 2).any(), boxes
    assert 5 < sum(found) < 55


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("em.h5/raw", "em.h5//raw"),
        ("em.h5/raw", "link.h5/raw"),
        ("em.h5/raw", "linked/em.h5/raw/"),
        ("one.h5", "one.h5/main"),
        ("em.zarr", "em.zarr/"),
        ("em.zarr", "linked/em.zarr"),
        ("em.zarr", "em.zarr/0"),
    ],
)
def test_one_array_has_one_place(folder, monkeypatch, one, other):
    monkeypatch.chdir(folder)
    names = [one, other, f"{folder}/{other}", f"file://{folder}/{other}", f"{folder}/../{folder.name}/{other}"]
    assert len({place_of(name) for name in names}) == 1
    assert place_of(one) != place_of(one.replace("raw", "other").replace("em.zarr", "else.zarr").replace("one", "two"))
    with pytest.raises(UserError, match=r"validation volume .* hold the same voxels of .*--allow_overlap"):
        refuse_overlap([part("training", one, "0:8,:,:"), part("validation", other, "7:12,:,:")])
    assert not refuse_overlap([part("training", one, "0:8,:,:"), part("validation", other, "8:12,:,:")])
    assert not refuse_overlap([part("test", one), part("test", other)])  # what is tested twice is no leak


def test_hard_links_are_one_array(folder, tmp_path):
    """To a file, to all files of a folder, and to sections."""
    (tmp_path / "em.h5").hardlink_to(folder / "em.h5")
    shutil.copytree(folder / "em.zarr", tmp_path / "em.zarr", copy_function=os.link)
    (folder / "sections").mkdir()
    for z in range(4):
        tifffile.imwrite(folder / f"sections/{z}.tif", np.zeros((8, 8), np.uint8))
    shutil.copytree(folder / "sections", tmp_path / "sections", copy_function=os.link)
    for name in ("em.h5/raw", "em.zarr", "sections"):
        one, other = (
            part(role, f"{place}/{name}", raw_voxel_size_zyx=(40, 8, 8))
            for role, place in (("training", folder), ("test", tmp_path))
        )
        with pytest.raises(UserError, match="hold the same voxels"):
            refuse_overlap([one, other])
    assert not refuse_overlap([part("training", f"{folder}/em.h5/raw"), part("test", f"{tmp_path}/em.h5/other")])
    declared = [DeclaredVolume(raw=f"{place}/em.h5/raw") for place in (folder, tmp_path)]
    assert len(open_shared({"training": declared[:1], "validation": [], "test": declared[1:]})) == 2


def test_specifications_name_the_same_place(folder):
    store = {"driver": "file", "path": f"{folder}/em.zarr/0/"}
    for kvstore in (store, f"file://{folder}/em.zarr/0"):
        spec = {"driver": "zarr3", "kvstore": kvstore}
        assert place_of(json.dumps(spec)) == place_of(json.dumps({"driver": "cast", "base": spec, "dtype": "uint16"}))
        assert place_of(json.dumps(spec)) == os.path.realpath(folder / "em.zarr")


def test_levels_of_a_pyramid_are_one_volume(tmp_path):
    url = f"{tmp_path}/{writers.n5_pyramid(tmp_path, np.zeros((8, 48, 96), np.uint8))}"
    fine = part("training", url, ":,0:24,:")
    for roi, shared in ((":,11:24,:", True), (":,12:24,:", False)):
        for coarse in ({"raw": url, "raw_level": 1}, {"raw": f"{url}/s1"}):
            assert bool(refuse_overlap([fine, part("test", roi=roi, **coarse)], allowed=True)) is shared


def test_labels_count_on_their_own_voxels(folder, tmp_path):
    """Two raws, of which the second begins 4 sections later; both with the same labels."""
    np.save(tmp_path / "a.npy", np.zeros(SHAPE, np.uint8))
    np.save(tmp_path / "b.npy", np.zeros(SHAPE, np.uint8))
    sizes = {"raw_voxel_size_zyx": (10, 10, 10), "labels": f"{folder}/em.h5/labels"}
    one = part("training", f"{tmp_path}/a.npy", "0:6,:,:", **sizes)
    later = {**sizes, "raw_offset_zyx": (40, 0, 0)}
    with pytest.raises(UserError, match="hold the same labels of"):
        refuse_overlap([one, part("test", f"{tmp_path}/b.npy", "1:5,:,:", **later)])
    assert not refuse_overlap([one, part("test", f"{tmp_path}/b.npy", "2:5,:,:", **later)])


def test_only_shared_files_need_to_be_there(folder):
    """Another machine may hold the test volume."""
    here, gone = DeclaredVolume(raw=f"{folder}/em.h5/raw", roi="0:8,:,:"), DeclaredVolume(raw="nowhere.h5/raw")
    assert open_shared({"training": [here], "validation": [], "test": [gone]}) == []
    validation = DeclaredVolume(raw=f"{folder}/link.h5/raw", roi="4:12,:,:")
    parts = open_shared({"training": [here], "validation": [validation], "test": [gone]})
    assert [found.role for found in parts] == ["training", "validation"]
    assert refuse_overlap(parts, allowed=True)


def test_a_part_survives_json(folder):
    found = part("training", f"{folder}/em.h5/raw", "0:7,3:20,:", labels=f"{folder}/em.h5/labels")
    assert part_from(json.loads(json.dumps(dataclasses.asdict(found)))) == found
