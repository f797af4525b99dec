"""What a run logs."""

import json
import time

import jax.numpy as jnp
import numpy as np
from PIL import Image

from emsam_jax.training.log import Log
from emsam_jax.training.pictures import Sample


def test_rows_reach_tensorboard_under_their_whole_names(make_config, tmp_path):
    row = {"step": 3, "loss": 0.5, "loss_refined": 0.25, "learning_rate": 1e-3, "validation_voi_split": 1.5}
    with Log(make_config(), tmp_path, 0) as log:
        log.row({**row, "patches_per_second": 2.0})
    written = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    for tag in (b"loss", b"loss/refined", b"learning_rate", b"validation/voi_split", b"patches_per_second"):
        assert bytes([len(tag)]) + tag in written  # protobuf: the tag's length stands before it
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss_refined"] == 0.25


def test_a_sample_is_large_enough_to_look_at_and_curves_are_there_from_the_first_one(make_config, tmp_path):
    maps = np.zeros((4, 24, 24, 3), np.float32)
    with Log(make_config(), tmp_path, 0) as log:
        log.sample(5, Sample(np.ones((4, 24, 24, 1), np.float32), maps, None, maps))
    with Image.open(tmp_path / "samples/00000005.png") as picture:
        width, height = picture.size
    assert width >= 3 * 300
    assert height >= 300
    assert (tmp_path / "curves.png").exists()


def test_the_time_left_counts_pauses(make_config, tmp_path):
    """Ten steps of 20 ms, and a pause of 100 ms after every one: 12 s for the 100 that are left, not 2."""
    metrics = {"skipped_in_row": jnp.zeros((), jnp.int32)}
    with Log(make_config("optim.steps=110", "log.every=1000"), tmp_path, 0) as log:
        for step in range(1, 11):
            time.sleep(0.02)
            log.step(step, metrics)
            log.flush()
            time.sleep(0.1)
            log.resume()
        assert 10 <= float(log._clock.left().removesuffix(" s")) <= 40
