"""What a trained network calls 0.5 is true of half, on volumes that it was not trained on."""

import jax
import numpy as np
import pytest

from emsam_jax.inference import (
    calibrate,
    count_affinities,
    describe_reliability,
    load_trained,
    predict_affinities,
    settings_from,
)
from emsam_jax.training.loop import train
from emsam_jax.volumes import open_declared

STEPS = 120


@pytest.mark.slow
def test_a_half_means_half(make_config, rows_of, tmp_path):
    config = make_config(
        "model.channels=(4, 8)",
        *(f"optim.{field}" for field in (f"steps={STEPS}", "warmup=10", "peak_lr=5e-3", "ema=0.95")),
        *(f"{one}.every={STEPS}" for one in ("checkpoint", "validation", "log")),
    )
    train(config, tmp_path / "run", jax.devices()[:1])
    (row,) = (row for row in rows_of(tmp_path / "run") if "validation_voi" in row)
    trained = load_trained(tmp_path / "run")
    network, prior = trained.model.network, trained.measured.prior
    specimen = open_declared(config.data.validation[0])
    settings = settings_from(config, progress=False)
    found = {}
    for name, model in (
        ("as it learned", calibrate(network, ())),
        ("without the prior", calibrate(network, prior)),
        ("as predicted", trained.model),
    ):
        affinities = predict_affinities(model, specimen, tmp_path / f"{name}.zarr", settings)
        counts = count_affinities(affinities[...], specimen, specimen.labelled_region, config)
        found[name] = describe_reliability(counts)
        print(name, found[name])
    predicted = found["as predicted"]
    assert min(predicted["known_at_half"]) > 500
    np.testing.assert_allclose(predicted["true_at_half"], 0.5, atol=0.05)
    assert row["validation_true_at_half"] == pytest.approx(predicted["true_at_half"])
    assert max(abs(share - 0.5) for share in found["as it learned"]["true_at_half"]) > 0.1
