"""emsam push, eval, segment and export as a user calls them, with a hub by its settings in the environment."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.volumes import open_volume
from tests.programs import environment
from tests.sharing.conftest import RAW
from tests.sharing.hub import Hub, Repo

BARS = ("Fetching ", "Downloading ", "Reconstructing ")  # what the hub's client shows of its progress


@pytest.mark.slow
def test_a_model_goes_to_the_hub_and_segments_from_there(run_folder: Path, tmp_path: Path):
    np.save(tmp_path / "em.npy", RAW)

    def emsam(hub: Hub, *line: str) -> subprocess.CompletedProcess[str]:
        users = environment(
            HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"), HF_TOKEN="a token", HF_HUB_DISABLE_XET="1"
        )
        command = [sys.executable, "-m", "emsam_jax", *line]
        return subprocess.run(command, cwd=tmp_path, env=users, check=False, capture_output=True, text=True)

    with Hub() as hub:
        done = emsam(hub, "push", str(run_folder), "hf:lab/small", "--license=apache-2.0", "--dtype=float16")
        assert done.returncode == 0, done.stderr
        oid = hub.repos["lab/small"].branches["main"]
        assert done.stdout.startswith(f"Model: hf:lab/small@{oid}\n")
        done = emsam(hub, "segment", f"--ckpt=hf:lab/small@{oid}", "--raw=em.npy", "--out=neurons.zarr", "--workers=1")
        assert done.returncode == 0, done.stderr
        assert open_volume(tmp_path / "neurons.zarr").shape == RAW.shape
        hub.repos["lab/gated"] = Repo()
        hub.repos["lab/gated"].commit("main", {"config.json": b"{}"})
        hub.repos["lab/gated"].gated = True
        hub.token = "another"
        for line, said in (
            (("eval", "--ckpt=hf:lab/none"), "eval: hf:lab/none: found no such repository at http"),
            (("eval", "--ckpt=hf:lab/gated"), "eval: hf:lab/gated is gated: ask for access at http"),
            (("eval", "--ckpt=hf:lab/small@v2"), "eval: hf:lab/small: expected a branch, tag or commit as revision"),
            (("push", str(run_folder), "hf:lab/new"), "push: hf:lab/new: http"),
            (("export", "--ckpt=hf:lab/none", "--out=a"), "export: hf:lab/none: found no such repository at http"),
        ):
            done = emsam(hub, *line)
            assert done.returncode == 1, done
            (shown,) = [text for text in done.stderr.splitlines() if text and not text.startswith(BARS)]
            assert shown.startswith(said)
