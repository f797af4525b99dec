"""Makes the state of a training: random, pre-trained or from another run, sharded from the start."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int

from emsam_jax.config import Config
from emsam_jax.errors import UserError
from emsam_jax.inference import read_trained_params
from emsam_jax.model import FGNet, Params, abstract_fgnet, jit_once, pretrained_encoder, split_fgnet
from emsam_jax.training.optimizer import make_optimizer
from emsam_jax.training.sharding import abstract, place, put


class TrainState(NamedTuple):
    """All that changes from step to step. Frozen parameters are no part of it."""

    step: Int[Array, ""]  # steps done, skipped ones too
    params: Params
    optimizer: Any
    ema: Params  # running mean of the parameters
    skipped: Int[Array, ""]  # steps left out because their loss or gradient was NaN or infinite
    skipped_in_row: Int[Array, ""]


def create_state(config: Config, params: Params) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(zero, params, make_optimizer(config.optim, params).init(params), ema, zero, jnp.copy(zero))


def abstract_state(config: Config, mesh: Mesh) -> tuple[TrainState, dict[str, Any]]:
    """Returns shapes and shardings of the state and of the frozen parameters."""
    trained, frozen = _shapes(config)
    return abstract(mesh, (jax.eval_shape(lambda params: create_state(config, params), trained), frozen))


def new_state(config: Config, mesh: Mesh) -> tuple[TrainState, Params]:
    """Makes the state and the frozen parameters; no device ever holds more than its shards."""
    given = _given(config)

    def draw() -> tuple[Params, Params]:
        parts = split_fgnet(FGNet(config.model, rngs=nnx.Rngs(config.seed)))
        trained, frozen = ({name: value for name, value in part.items() if name not in given} for part in parts)
        return trained, frozen

    drawn = jit_once(draw, out_shardings=place(mesh, jax.eval_shape(draw)))()
    _, frozen_names = _shapes(config)
    placed = put(mesh, given)
    trained, frozen = (
        {**part, **{name: value for name, value in placed.items() if (name in frozen_names) is is_frozen}}
        for part, is_frozen in zip(drawn, (False, True), strict=True)
    )
    trained = {name: trained[name] for name in sorted(trained)}

    def create(params: Params) -> TrainState:
        return create_state(config, params)

    shardings = place(mesh, jax.eval_shape(create, trained))
    return jit_once(create, out_shardings=shardings)(trained), frozen


def _given(config: Config) -> dict[str, np.ndarray]:
    """Reads parameters that are not random, by their dotted names."""
    if not config.init_from:
        return pretrained_encoder(config.model)
    params = read_trained_params(config.init_from)
    _check_fits(params, config)
    return params


def _check_fits(params: dict[str, Any], config: Config) -> None:
    wanted = {name: leaf.shape for part in _shapes(config) for name, leaf in part.items()}
    found = {name: value.shape for name, value in params.items()}
    names = [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
    if names:
        name = names[0]
        raise UserError(
            f"config.init_from={config.init_from}: {len(names)} of its parameters do not fit config.model, such as "
            f"{name} (expected shape {wanted.get(name, 'none')}, found {found.get(name, 'none')}); choose the same "
            "config.model, of which only encoder.frozen, encoder.drop_path and what costs memory may differ."
        )


def _shapes(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    return split_fgnet(abstract_fgnet(config.model))
