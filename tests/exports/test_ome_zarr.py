"""Labels for older viewers, by the command, and as napari's plugin opens them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.exports import export_labels
from emsam_jax.storage import open_folder, read_key
from emsam_jax.volumes import create_volume, open_volume
from tests.exports.conftest import Run, read_by_its_own
from tests.programs import ROOT, environment

BY_NAPARI = """
import sys
import numpy as np
from napari_ome_zarr import napari_get_reader

((data, options, kind),) = napari_get_reader(sys.argv[1])(sys.argv[1])
assert kind == "labels", kind
levels = {f"level{number}": np.asarray(level) for number, level in enumerate(data)}
np.savez(sys.argv[2], scale=options["scale"], **levels)
"""


def call(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emsam_jax", "export", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_exports_labels_and_answers_mistakes_in_a_sentence(run: Run, tmp_path: Path):
    flags = [f"--labels={run.url}", "--to=ome-zarr-0.4", f"--out={tmp_path / 'older.zarr'}"]
    done = call(*flags)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/older.zarr: (20, 50, 60) uint64, in 1 levels\n"), done
    np.testing.assert_array_equal(open_volume(tmp_path / "older.zarr")[...], run.labels)
    for wrong, sentence in (
        (["--out=a"], "export: Expected one of --ckpt and --labels, found none (see --help).\n"),
        ([*flags, "--window=8,8,8"], "export: --window is for --ckpt, found --labels.\n"),
        ([*flags[1:], "--ckpt=a"], "export: --to=ome-zarr-0.4 is for --labels, found --ckpt.\n"),
    ):
        done = call(*wrong)
        assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.slow
def test_naparis_plugin_opens_all_levels_as_labels(tmp_path: Path):
    ids = (np.indices((20, 300, 300)) // np.array([10, 70, 50])[:, None, None, None]).sum(0).astype(np.uint64)
    create_volume(tmp_path / "a.zarr", ids.shape, "uint64", (40, 4, 4), offset_zyx=(80, 8, 16))[...] = ids << 40
    export_labels("ome-zarr-0.4", str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr"))
    assert read_key(open_folder(str(tmp_path / "b.zarr")), "zarr.json") is None
    read_by_its_own(BY_NAPARI, tmp_path / "b.zarr", tmp_path / "read.npz")
    read = np.load(tmp_path / "read.npz")
    assert read["scale"].tolist() == [40, 4, 4]  # version 0.10 places every volume at 0
    levels = [name for name in read if name.startswith("level")]
    assert len(levels) == len(open_volume(tmp_path / "b.zarr").levels) > 1
    for level in range(len(levels)):
        np.testing.assert_array_equal(read[f"level{level}"], open_volume(tmp_path / "b.zarr", level=level)[...])
