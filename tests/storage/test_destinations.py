"""Every command that writes leaves alone what others wrote, whatever the name that a place is called by."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.inference import CALIBRATION_FILE
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.storage import EVALUATION, LABELS, TRAINING, claim, open_folder, remove
from emsam_jax.training import scoring
from emsam_jax.volumes import Format, create_volume, open_volume
from emsam_jax.volumes.ingest.conversion import ingest
from emsam_jax.volumes.synthetic import write_synthetic
from emsam_jax.volumes.synthetic.tissue import Synthetic
from tests.storage.commands import (
    GREY,
    SHAPE,
    SIZE,
    convert,
    create,
    create_over,
    demonstrate,
    ingest_over,
    ingest_precomputed,
    ingest_precomputed_over,
    ingest_zarr,
    judge,
    segment,
    synthetic,
    train_there,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes to read."""
    folder = tmp_path_factory.mktemp("made")
    create_volume(folder / "raw.zarr", SHAPE, "uint8", SIZE)[...] = GREY
    create_volume(folder / "labels.zarr", SHAPE, "uint32", SIZE)[...] = 1 + GREY // 100
    create_volume(folder / "affinities.zarr", (3, *SHAPE), "float32", SIZE)[...] = 0.5
    return folder


Command = Callable[[Path, Path], None]
ADVICE = "choose another place or move that away."
VOLUMES = [ingest_zarr, ingest_precomputed, ingest_over, ingest_precomputed_over, create, create_over, segment]
# Others' files: notes, sections, and volumes in formats whose names are ours too.
NOTES, SECTION, N5, ZARR2 = "notes.txt", "em_001.tif", "attributes.json", "0/.zarray"
STRANGERS: list[tuple[Command, str]] = [
    *((command, key) for command in VOLUMES for key in (NOTES, SECTION, N5, ZARR2, "zarr.json", "emsam_jax.json")),
    *((synthetic, key) for key in ("raw.zarr/.zgroup", "raw.zarr/zarr.json", "labels.zarr/notes.txt", "raw.zarr")),
    *((judge, key) for key in ("scores.json", "report.html", "v/segmentation.zarr/.zgroup", "v/baseline.zarr/a")),
    *((train_there, key) for key in ("config.json", "encoder/x", "encoder.replaced/x", "validating/5/notes.txt")),
    *((demonstrate, key) for key in ("demo.json", "test/raw.zarr/x", "encoder/x", "config.json")),
    *((command, key) for command in (judge, train_there, demonstrate) for key in (NOTES, SECTION, "data/raw.h5")),
    *((convert, key) for key in (NOTES, "params/notes.txt", "../out.partial/x", "../out.replaced/params/x")),
]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("command", "key"), STRANGERS, ids=lambda value: getattr(value, "__name__", value))
def test_what_others_wrote_is_refused_and_left_alone(command: Command, key: str, made: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / key).parent.mkdir(parents=True, exist_ok=True)
    (out / key).write_text('{"theirs": true}')
    (out / "empty").mkdir()
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=r"expected .*(found|is a file)"):
        command(made, out)
    assert files_in(tmp_path) == before
    assert (out / "empty").is_dir()


@pytest.mark.parametrize("command", [ingest_over, ingest_precomputed_over, create_over, synthetic])
def test_overwriting_keeps_the_files_of_others(command: Command, made: Path, tmp_path: Path):
    out = tmp_path / "out"
    command(made, out)
    whole = files_in(out)
    theirs = ("notes.txt", "0/notes.txt", "0/c/notes.txt", "labels/0/.zarray", "8_8_8/mine.txt", "ledger/notes.txt")
    for key in theirs:
        (out / key).parent.mkdir(parents=True, exist_ok=True)
        (out / key).write_text("theirs")
    command(made, out)
    after = files_in(out)
    assert {key: after.pop(key) for key in theirs} == dict.fromkeys(theirs, b"theirs")
    assert after.keys() == whole.keys()


RENAMES = """
import os, sys
from pathlib import Path
from emsam_jax.volumes import open_volume
from emsam_jax.volumes.ingest.conversion import ingest

rename, left = Path.rename, [int(sys.argv[3])]

def counted(path, target):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    return rename(path, target)

Path.rename = counted
ingest(open_volume(sys.argv[1]), sys.argv[2], overwrite=True)
"""


def test_killed_while_it_replaces_the_old_volume_or_the_new_one_is_whole(made: Path, tmp_path: Path):
    """At each rename: of the old volume, the new one, and the files of others in it."""
    create_volume(tmp_path / "new.zarr", SHAPE, "uint8", SIZE)[...] = 255 - GREY
    for renames in range(5):
        out = tmp_path / str(renames) / "out"
        ingest_zarr(made, out)
        for key in ("notes.txt", "0/c/notes.txt"):
            (out / key).write_text("theirs")
        (out / "empty").mkdir()
        command = [sys.executable, "-c", RENAMES, f"{tmp_path}/new.zarr", str(out), str(renames)]
        done = subprocess.run(command, check=False, capture_output=True)
        assert done.returncode == (-9 if renames < 4 else 0), done.stderr
        whole = [open_volume(path)[...] for path in out.parent.iterdir() if (path / "zarr.json").exists()]
        assert any((values == GREY).all() or (values == 255 - GREY).all() for values in whole)
        ingest(open_volume(tmp_path / "new.zarr"), str(out), overwrite=True)
        np.testing.assert_array_equal(open_volume(out)[...], 255 - GREY)
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        assert (out / "notes.txt").read_text() == (out / "0/c/notes.txt").read_text() == "theirs"
        assert (out / "empty").is_dir()


@pytest.mark.parametrize("state", ["unfinished", "replaced"])
def test_the_places_for_replacing_are_claimed_too(state: str, made: Path, tmp_path: Path):
    ingest_zarr(made, tmp_path / "out")
    write_synthetic(Synthetic(GREY, GREY.astype(np.uint32), SIZE), str(tmp_path))
    for name in (f".out.{state}", f".raw.zarr.{state}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("theirs")
    before = files_in(tmp_path)
    for command, out in ((ingest_over, tmp_path / "out"), (synthetic, tmp_path)):
        with pytest.raises(UserError, match=rf"\.{state}: expected .*, found .*; (choose another place or )?move"):
            command(made, out)
    assert files_in(tmp_path) == before


def test_a_link_to_a_volume_stays_a_link(made: Path, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    ingest_zarr(made, tmp_path / "disk/out")
    (tmp_path / "link").symlink_to("disk/out")
    ingest(open_volume(made / "labels.zarr"), str(tmp_path / "link"), overwrite=True)
    assert open_volume(tmp_path / "disk/out").dtype == np.uint32
    assert (tmp_path / "link").is_symlink()


def test_another_format_takes_the_place_of_the_first_one(made: Path, tmp_path: Path):
    out = tmp_path / "out"
    ingest_zarr(made, out)
    ingest_precomputed_over(made, out)
    assert not list(out.rglob("zarr.json"))
    create_volume(out, SHAPE, "uint16", SIZE, overwrite=True)
    assert sorted(files_in(out)) == ["0/zarr.json", "emsam_jax.json", "zarr.json"]


@pytest.mark.parametrize("first", [ingest_zarr, create, segment, synthetic, judge])
@pytest.mark.parametrize("second", [ingest_zarr, create, segment])
def test_work_of_another_kind_is_refused(first: Command, second: Command, made: Path, tmp_path: Path):
    if first is second is not create:
        pytest.skip("its own work: resumes")
    first(made, tmp_path / "out")
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=r"there (is|are) .* already|found .*, which it did not write"):
        second(made, tmp_path / "out")
    assert files_in(tmp_path) == before


def test_a_run_begins_beside_what_its_command_names(made: Path, tmp_path: Path):
    out, log = tmp_path / "run", tmp_path / "run/log.txt"
    (out / "data").mkdir(parents=True)
    (out / "data/raw.zarr").symlink_to(made / "raw.zarr")
    for name in ("config.py", ".notes", "slurm-17.out"):
        (out / name).write_text("mine")
    code = (
        "import sys; from emsam_jax.storage import TRAINING, check_free; "
        "check_free(sys.argv[1], TRAINING, sys.argv[2:3], given=sys.argv[3:])"
    )

    def begin(*arguments: str) -> str:
        with log.open("w") as file:
            command = [sys.executable, "-c", code, str(out), *arguments]
            done = subprocess.run(command, check=False, stdout=file, stderr=subprocess.PIPE, text=True)
        return (done.stderr.splitlines() or [""])[-1]

    assert begin(f"{out}/data/raw.zarr", f"{out}/config.py") == ""
    assert begin(f"{made}/raw.zarr", f"{out}/config.py").endswith("found data, which it did not write; " + ADVICE)
    assert begin(f"{out}/data/raw.zarr").endswith("found config.py, which it did not write; " + ADVICE)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("a.zarr", "a.zarr"),
        ("a.zarr", "a.zarr/"),
        ("a.zarr/", "../{}/a.zarr"),
        ("a.zarr", "link"),
        ("link", "a.zarr"),
        ("link/0", "a.zarr"),
        ("a.zarr/0", "a.zarr"),
        ("a.zarr", "a.zarr/0"),
        ("a.zarr", "link/new/deep"),
        ("a.zarr", "file://{}/a.zarr"),
        ("a.zarr", "hard"),
        ("hard/0", "a.zarr"),
        ('{{"driver": "zarr3", "kvstore": "file://{}/a.zarr/0/"}}', "link"),
        ('{{"driver": "zarr3", "kvstore": {{"driver": "file", "path": "{}/a.zarr/0/"}}}}', "a.zarr"),
    ],
)
def test_a_source_is_known_by_all_its_names(
    source: str, destination: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    create_volume("a.zarr", SHAPE, "uint8", SIZE)[...] = GREY
    Path("link").symlink_to("a.zarr")
    shutil.copytree("a.zarr", "hard", copy_function=os.link)
    before = files_in(tmp_path)
    volume = open_volume(source.format(tmp_path), voxel_size_zyx=SIZE)
    place = destination.format(tmp_path.name if ".." in destination else tmp_path)
    with pytest.raises(UserError, match="expected a destination apart from the source"):
        ingest(volume, place, overwrite=overwrite)
    assert files_in(tmp_path) == before


def test_labels_and_runs_keep_out_of_their_sources(made: Path, tmp_path: Path):
    affinities = open_volume(made / "affinities.zarr", channel="all")
    (tmp_path / "link").symlink_to(made)
    for place in ("affinities.zarr", "affinities.zarr/labels"):
        with pytest.raises(UserError, match="expected a destination apart from the source"):
            segment_blockwise(affinities, tmp_path / "link" / place, Recipe())
    with pytest.raises(UserError, match="expected a destination apart from the source"):
        claim(str(made / "raw.zarr/run"), TRAINING, [str(made / "raw.zarr")])
    with pytest.raises(UserError, match="expected a destination apart from the source"):
        judge(made, made / "labels.zarr/eval")
    assert not claim(str(tmp_path / "run"), TRAINING, [str(tmp_path / "run/train/raw.zarr")])  # as the demo's lie


@pytest.mark.parametrize("format", ["ome-zarr", "precomputed"])
def test_remote_places(format: Format):  # noqa: A002
    """Through the same key-value stores as gs:// and s3://."""
    theirs, url = open_folder("memory://theirs"), f"memory://ours-{format}"
    theirs.write("a/notes.txt", b"theirs").result()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"memory://theirs: expected an empty .*, found a, which"):
            create_volume("memory://theirs", SHAPE, "uint8", SIZE, format=format, overwrite=overwrite)
    assert theirs.list().result() == [b"a/notes.txt"]

    volume = create_volume(url, SHAPE, "uint8", SIZE, format=format)
    volume[...] = GREY
    open_folder(url).write("0/notes.txt", b"theirs").result()
    for place in (url, f"{url}/", f"{url}/0"):
        with pytest.raises(UserError, match="expected a destination apart from the source"):
            ingest(volume, place, overwrite=True)
    create_volume(url, SHAPE, "uint16", SIZE, format="precomputed", overwrite=True)[...] = GREY
    keys = {key.decode() for key in open_folder(url).list().result()}
    assert keys == {"info", "8_8_8/0.shard", "emsam_jax.json", "0/notes.txt"}


def test_a_marker_counts_only_as_this_software_writes_it(tmp_path: Path):
    for content in ("[]", '"volume"', '{"software": "emsam_jax", "wrote": {}}', '{"wrote": ["labels"]}', "[" * 10**5):
        (tmp_path / "emsam_jax.json").write_text(content)
        with pytest.raises(UserError, match=r"found emsam_jax\.json, which it did not write"):
            claim(str(tmp_path), LABELS)
    (tmp_path / "emsam_jax.json").rename(tmp_path / "emsam_jax.json_0123abcd.__lock")  # as a claim that was killed
    assert not claim(str(tmp_path), EVALUATION)
    assert not claim(str(tmp_path), TRAINING)
    assert claim(str(tmp_path), EVALUATION)
    assert json.loads((tmp_path / "emsam_jax.json").read_text())["wrote"] == ["evaluation", "training"]


def test_a_validation_removes_its_own_files(tmp_path: Path):
    own = ("volume0-1-2-3.npy", CALIBRATION_FILE, scoring.RESULT_FILE, scoring.RECIPE_FILE, scoring.PICTURE_FILE)
    for name in (*own, "notes.txt", "volume.npy"):
        (tmp_path / name).touch()
    remove(str(tmp_path), scoring.FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "volume.npy"]
