"""A run for tests to read that needs no training."""

from pathlib import Path
from typing import Any

import jax

from emsam_jax.config import Config
from emsam_jax.inference import Measured
from emsam_jax.training.checkpoint import Checkpoints
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.state import new_state
from emsam_jax.volumes import open_declared, part_of


def save_untrained(workdir: Path, config: Config, voxel_size_zyx: tuple[float, float, float], **measured: Any) -> None:
    """Save step 3 of a run that learned nothing: its affinities are poor, but certain."""
    parts = tuple(part_of("training", open_declared(volume)) for volume in config.data.train)
    with Checkpoints(workdir, config, Measured(voxel_size_zyx, parts=parts, **measured)) as checkpoints:
        state, frozen = new_state(config, make_mesh(1, jax.devices()[:1]))
        checkpoints.keep_frozen(frozen)
        checkpoints.save(3, state)
