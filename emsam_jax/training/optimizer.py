"""AdamW with a rate for each parameter: new parts learn fast, pre-trained ones slowly, shallow ones slowest."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import optax

from emsam_jax.config import Config, OptimConfig
from emsam_jax.model import ENCODER

_BLOCK = re.compile(r"encoder\.trunk\.blocks\.(\d+)\.")


def optim_of(config: Config) -> OptimConfig:
    """Lowers the peak rate where parts come trained: the rate of random ones would undo what they learned."""
    optim = config.optim
    return dataclasses.replace(optim, peak_lr=optim.trained_lr * optim.peak_lr) if config.init_from else optim


def make_optimizer(config: OptimConfig, params: Mapping[str, Any]) -> optax.GradientTransformation:
    """Makes updates before any rate, for parameters by their dotted names; its state has the same names."""
    decayed = {name: value.ndim > 1 for name, value in params.items()}
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay, mask=decayed))


def schedule(config: OptimConfig) -> optax.Schedule:
    """Returns the rate of the new parts by step: linear from 0, then half a cosine."""
    warmup = min(config.warmup, config.steps // 2)
    return optax.warmup_cosine_decay_schedule(
        0.0, config.peak_lr, warmup, max(config.steps, warmup + 1), config.peak_lr * config.final_lr
    )


def relative_rates(config: OptimConfig, params: Mapping[str, Any]) -> dict[str, float]:
    """Returns each parameter's rate, relative to the new parts'; the encoder's falls from last to first block."""
    depth = 1 + max((int(found[1]) for name in params if (found := _BLOCK.match(name))), default=0)

    def rate(name: str) -> float:
        if not name.startswith(ENCODER):
            return 1.0
        block = _BLOCK.match(name)
        place = int(block[1]) if block else depth if name.startswith(f"{ENCODER}neck.") else -1
        return config.encoder_lr / config.peak_lr * config.layer_decay ** max(depth - 1 - place, 0)

    return {name: rate(name) for name in params}
