"""A volume of affinities may be stopped at any time, resumes, and never mixes two predictions."""

import dataclasses
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks import Ledger, progress
from emsam_jax.config import SHORT_OFFSETS, Config, DataConfig, EncoderConfig, ModelConfig, PredictConfig
from emsam_jax.errors import UserError
from emsam_jax.inference import Output, Prediction, predict_affinities, settings_from
from emsam_jax.inference.symmetry import Symmetry
from emsam_jax.volumes import Box, Specimen, create_volume, open_volume
from tests.inference import predict_volume
from tests.inference.models import RAW, OneSided, specimen_of, turned, whole
from tests.programs import environment

QUIET = {"window": (4, 8, 8), "batch": 32, "progress": False}


def run(raw: str, out: Path, block: str, seconds: float = 0.0) -> subprocess.Popen:
    """In a process with one device."""
    command = [sys.executable, predict_volume.__file__, raw, str(out), block, str(seconds)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def entries(out: Path) -> dict[str, str]:
    folder = out / "ledger" / "predict" / "done"
    return {path.name: path.read_text() for path in folder.glob("?-?-?")}


def test_writes_a_region_with_its_place_in_the_world(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "_IN_A_FILE", 0.0)
    raw = create_volume(tmp_path / "raw.zarr", RAW.shape, "uint8", (40, 4, 8), offset_zyx=(400, 40, 80))
    raw[...] = 255 - RAW
    specimen = Specimen(open_volume(raw.url), roi="2:11,3:19,0:26")
    specimen.intensity.invert = True
    settings = Prediction(**{**QUIET, "progress": True, "batch": 1}, block=(9, 16, 26), coarse=True)
    found = predict_affinities(OneSided(), specimen, tmp_path / "out.zarr", settings)
    assert (found.shape, found.dtype) == ((3, 9, 16, 26), np.float16)
    assert (found.voxel_size_zyx, found.offset_zyx, found.offsets) == ((40, 4, 8), (480, 52, 80), SHORT_OFFSETS)
    np.testing.assert_allclose(found[...], whole(RAW)[:, 2:, 3:], atol=1e-3)
    coarse = open_volume(tmp_path / "out.zarr" / "coarse", channel="all")
    assert (coarse.shape, coarse.offsets) == (found.shape, SHORT_OFFSETS)
    assert 0.1 < np.abs(coarse[...].astype(float) - found[...]).mean() < 0.5
    said = capfd.readouterr().err
    assert "predict: 100%" in said
    shown = {int(percent) for percent in re.findall(r"predict: +(\d+)%", said)}
    assert len(shown - {0, 100}) > 2  # of one block
    assert "voxel/s" in said


def test_blocks_outside_the_mask_are_left_out(tmp_path: Path):
    specimen = specimen_of(np.random.default_rng(3).integers(0, 256, (8, 300, 140), dtype=np.uint8))
    mask = np.zeros((8, 300, 140), np.uint8)
    mask[3, 290, 10] = 1
    specimen.mask = create_volume(tmp_path / "mask.zarr", mask.shape, "uint8", (40, 4, 4))
    specimen.mask[...] = mask
    settings = Prediction(**{**QUIET, "window": (8, 64, 64)}, block=(8, 128, 128), dtype="uint8")
    out = tmp_path / "out.zarr"
    found = predict_affinities(OneSided(), specimen, out, settings)[...]
    assert (found[:, :, 256:, :128] > 0).mean() > 0.99
    assert not found[:, :, :256].any()
    assert not found[..., 128:].any()
    sums = {name: json.loads(text)["checksum"] for name, text in entries(out).items()}
    assert len(sums) == 6
    assert [name for name, checksum in sums.items() if checksum != "skipped"] == ["0-2-0"]


def test_another_prediction_is_refused(tmp_path: Path):
    out = tmp_path / "out.zarr"
    predict_affinities(OneSided(), specimen_of(RAW), out, Prediction(**QUIET))
    before = entries(out)
    slower = Prediction(**{**QUIET, "batch": 1}, encode_once=False)  # another way to the same affinities
    predict_affinities(OneSided(), specimen_of(RAW), out, slower)
    assert entries(out) == before
    for changed, message in {
        "stride": "stride .2, 4, 4. there, .1, 4, 4. here",
        "input": "input_content '.*' there, '.*' here; choose another output",
        "model": "model '.*' there, '.*' here; step 1 there, 2 here; choose",
        "region": "region '0:11,0:19,0:26' there, '0:4,0:19,0:26' here; blocks",
    }.items():
        other = specimen_of(255 - RAW if changed == "input" else RAW)
        settings = Prediction(**QUIET, stride=(1, 4, 4) if changed == "stride" else ())
        region = Box((0, 0, 0), (4, 19, 26)) if changed == "region" else None
        model = OneSided()
        if changed == "model":
            ledger = Ledger.existing(f"{out}/ledger", "predict")
            assert ledger is not None
            facts = out / "ledger" / "predict" / "identity.json"
            facts.write_text(json.dumps({**json.loads(facts.read_text()), "model": "0123", "step": 1}))
        with pytest.raises(UserError, match=message):
            predict_affinities(
                model, other, out, settings, region=region, facts={"step": 2} if changed == "model" else {}
            )
    create_volume(tmp_path / "there.zarr", (3, 2, 2, 2), "uint8", (1, 1, 1))
    with pytest.raises(UserError, match="there is a volume already; choose another place"):
        predict_affinities(OneSided(), specimen_of(RAW), tmp_path / "there.zarr", Prediction(**QUIET))
    with pytest.raises(UserError, match="window: expected three voxel counts"):
        predict_affinities(OneSided(), specimen_of(RAW), tmp_path / "no.zarr", Prediction())


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same(tmp_path: Path):
    raw = predict_volume.write_raw(tmp_path / "raw.npy", (16, 250, 260))
    out, moment = tmp_path / "out.zarr", random.Random()
    kept: dict[str, str] = {}
    for at_least in (2, 5, 9):
        process = run(raw, out, "16,64,64", 0.1)
        while len(entries(out)) < max(at_least, len(kept) + 1):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.3))
        process.kill()
        process.communicate()
        now = entries(out)
        assert now.items() >= kept.items()
        assert len(kept) < len(now) < 20
        kept = now
    # What a torn disk would leave: a shard cut short, though its block is in the ledger.
    torn = out / "0" / "c" / "0" / "0" / "0" / "0"
    torn.write_bytes(torn.read_bytes()[:-64])
    process = run(raw, out, "16,64,64")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    left = f"{len(kept) - 1} of 20 blocks are done; 1 of them damaged, to be done again; "
    assert left in said
    done = entries(out)
    assert len(done) == 20
    del kept["0-0-0"]
    assert done.items() >= kept.items()
    assert len({json.loads(text)["run"] for text in done.values()}) == 4
    assert not (out / "ledger" / "running.json").exists()

    predict_volume.predict(raw, str(tmp_path / "undisturbed.zarr"), "16,64,64")
    found, wanted = (open_volume(tmp_path / name, channel="all") for name in ("out.zarr", "undisturbed.zarr"))
    assert found.shape == (3, 16, 250, 260)
    np.testing.assert_array_equal(found[...], wanted[...])


@pytest.mark.slow
def test_memory_depends_on_the_block_and_not_on_the_volume(tmp_path: Path):
    peaks = []
    for depth in (64, 256):
        raw = predict_volume.write_raw(tmp_path / f"{depth}.npy", (depth, 192, 192))
        process = run(raw, tmp_path / f"{depth}.zarr", "64,64,64")
        said = process.communicate()
        assert process.returncode == 0, said[1]
        peaks.append(int(said[0]))
    assert peaks[1] < 1.1 * peaks[0], peaks  # kB; the affinities alone would be 42 MB more


def test_a_block_that_fails_keeps_its_traceback_and_the_others_are_kept(tmp_path: Path):
    raw = np.random.default_rng(4).random((8, 140, 260), dtype=np.float32)
    raw[3, 130, 250] = np.nan
    out, settings = tmp_path / "out.zarr", Prediction(**{**QUIET, "window": (8, 64, 64)}, block=(8, 128, 128))
    with pytest.raises(UserError, match="found NaN"):
        predict_affinities(OneSided(), specimen_of(raw), out, settings)
    ledger = Ledger.existing(f"{out}/ledger", "predict")
    assert ledger is not None
    (failed,) = ledger.failed()
    assert "found NaN" in (out / "ledger" / "predict" / "failed" / "-".join(map(str, failed))).read_text()
    assert failed[1:] in [(0, 1), (0, 2), (1, 1), (1, 2)]  # those that see it; earlier ones are done
    assert ledger.done() == {(0, 0, x) for x in range(failed[2])}


def experiment(patch=(5, 8, 8), isotropic=False, **predict) -> Config:
    model = ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 8), isotropic=isotropic)
    return Config(model=model, data=DataConfig(patch=patch), predict=PredictConfig(**predict))


def test_settings_come_from_an_experiments_config(tmp_path: Path, caplog):
    config = experiment(stride=(0.5, 0.25, 1.0), symmetries=4, block=(5, 100, 128), dtype="uint8")
    settings = settings_from(config, progress=False)
    assert (settings.window, settings.stride) == ((5, 8, 8), (2, 2, 8))
    assert settings.symmetries == ("zyx", "zyX", "zYx", "zYX")
    assert not caplog.text
    specimen = specimen_of(np.zeros((12, 140, 300), np.uint8))
    out = Output(str(tmp_path / "out.zarr"), specimen, settings, specimen.region, SHORT_OFFSETS)
    assert out.plan.block == (12, 128, 128)  # whole chunks of 12 x 128 x 128
    assert Output(
        str(tmp_path), specimen, Prediction(window=(4, 32, 32)), specimen.region, SHORT_OFFSETS
    ).plan.counts == (1, 1, 1)

    apart = settings_from(experiment(window=(3, 10, 12), stride=(1.0, 0.5, 0.5)))
    assert (apart.window, apart.stride) == ((3, 10, 12), (3, 5, 6))
    assert "windows of (3, 10, 12) (z, y, x), where the model was trained on patches of (5, 8, 8)" in caplog.text


def test_windows_that_no_model_takes():
    with pytest.raises(UserError, match=r"predict\.window: expected three voxel counts \(z, y, x\), found \(4, 8\)"):
        settings_from(experiment(window=(4, 8)))
    with pytest.raises(
        UserError, match=r"predict\.window: expected sides .* multiples of \(1, 2, 2\), found \(4, 9, 8\)"
    ):
        settings_from(experiment(window=(4, 9, 8)))
    encoder = EncoderConfig(size="base_plus", weights="random", upsample=2)
    tiles = dataclasses.replace(experiment(window=(4, 48, 48)), model=ModelConfig(encoder=encoder))
    assert settings_from(tiles).window == (4, 48, 48)
    with pytest.raises(UserError, match=r"multiples of \(1, 32, 32\), found \(4, 48, 48\)"):
        settings_from(dataclasses.replace(tiles, model=ModelConfig(encoder=dataclasses.replace(encoder, upsample=1))))
    with pytest.raises(UserError, match=r"expected 1 to 16, since this model is not isotropic .* found 48"):
        settings_from(experiment(symmetries=48))


def test_48_symmetries_make_the_turned_volumes_affinities_the_turned_affinities(tmp_path: Path):
    """Each edge by the voxels that it joins, of a model without symmetry whose patch is no cube."""
    settings = settings_from(experiment((4, 8, 8), isotropic=True, symmetries=48, batch=64), progress=False)
    assert settings.window == (8, 8, 8)  # 6 x 6 x 6 holds fewer voxels than the patch
    raw = RAW[:8, :8, :8]
    symmetry = Symmetry((2, 0, 1), (False, True, False))
    plain, other = (
        predict_affinities(OneSided(), specimen_of(np.ascontiguousarray(volume)), tmp_path / name, settings)[...]
        for name, volume in {"plain.zarr": raw, "turned.zarr": turned(symmetry, raw)}.items()
    )
    places = np.stack([turned(symmetry, axis) for axis in np.indices(raw.shape)], -1)
    for channel in range(3):
        here, before = (np.moveaxis(places, channel, 0)[part].reshape(-1, 3) for part in (np.s_[1:], np.s_[:-1]))
        axes = np.abs(here - before).argmax(1)
        expected = plain[(axes, *np.maximum(here, before).T)]
        np.testing.assert_allclose(np.moveaxis(other[channel], channel, 0)[1:].ravel(), expected, rtol=0, atol=1e-3)
    assert plain.std() > 0.05
