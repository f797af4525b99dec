"""One step of training, a pure function of the state and a batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.lax import platform_dependent
from jax.sharding import Mesh
from jaxtyping import Array, Float

from emsam_jax.config import Config
from emsam_jax.data import Batch
from emsam_jax.model import Params, jit, merge_fgnet
from emsam_jax.training.losses import ClassWeights, loss_of_maps
from emsam_jax.training.optimizer import make_optimizer, optim_of, relative_rates, schedule
from emsam_jax.training.sharding import everywhere, place
from emsam_jax.training.state import TrainState

Metrics = dict[str, Array]
Learned = tuple[Params, Any, Params]  # parameters, the optimiser's state, the parameters' running mean
Update = Callable[[Learned, Params, Metrics], Learned]


def make_train_step(
    config: Config, weights: ClassWeights | None = None
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]:
    """Returns (state, frozen parameters, batch) -> (state, metrics), to be jitted by whoever knows the mesh.

    `weights` are the loss's; without them each sample has its own.
    """
    optim = optim_of(config)

    def loss_of(params: Params, frozen: Params, batch: Batch, key: Array) -> tuple[Float[Array, ""], Metrics]:
        maps = merge_fgnet(config.model, params, frozen)(batch.raw, None if frozen else key)
        with jax.named_scope("loss"):
            return loss_of_maps(maps, batch, config.loss, weights)

    @jax.named_scope("update")
    def update(learned: Learned, gradients: Params, scalars: Metrics) -> Learned:
        params, optimizer_state, ema = learned
        optimizer: Any = make_optimizer(optim, params)
        rates = relative_rates(optim, params)
        clipped = {name: gradient * scalars["clip"] for name, gradient in gradients.items()}
        updates, optimizer_state = optimizer.update(clipped, optimizer_state, params)
        params = {name: value - scalars["rate"] * rates[name] * updates[name] for name, value in params.items()}
        decay = scalars["decay"]
        ema = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, ema, params)
        return params, optimizer_state, ema

    def train_step(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        (loss, parts), gradients = _accumulated(
            jax.value_and_grad(loss_of, has_aux=True),
            state.params,
            frozen,
            batch,
            key=key,
            parts=config.optim.accumulate,
        )
        norm = optax.tree.norm(gradients)
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        scalars = {
            "clip": jnp.minimum(1.0, config.optim.clip / jnp.maximum(norm, 1e-12)),
            "rate": schedule(optim)(state.step),
            # Early on the mean forgets faster, or it would be the random start for 1 / (1 - decay) steps.
            "decay": jnp.minimum(config.optim.ema, (1 + state.step) / (10 + state.step)),
        }
        learned = (state.params, state.optimizer, state.ema)
        branch, select = (functools.partial(form, update) for form in (update_by_branch, update_by_selection))
        learned = platform_dependent(good, learned, gradients, scalars, cpu=branch, default=select)
        new_state = TrainState(
            state.step + 1,
            *learned,
            skipped=state.skipped + ~good,
            skipped_in_row=jnp.where(good, 0, state.skipped_in_row + 1),
        )
        metrics = {
            "loss": loss,
            **{f"loss_{name}": part for name, part in parts.items()},
            "gradient_norm": norm,
            "learning_rate": scalars["rate"],
            "skipped": new_state.skipped,
            "skipped_in_row": new_state.skipped_in_row,
        }
        return new_state, metrics

    return train_step


def update_by_branch(update: Update, good: Array, learned: Learned, gradients: Params, scalars: Metrics) -> Learned:
    """Leaves a bad step out by a branch: CPUs need not copy what it is given, nor compute what is left out."""
    return jax.lax.cond(good, update, lambda learned, *_: learned, learned, gradients, scalars)


def update_by_selection(update: Update, good: Array, learned: Learned, gradients: Params, scalars: Metrics) -> Learned:
    """Leaves a bad step out by selecting old values: accelerators copy all that a branch is given."""
    # cuDNN's gradients lie as its kernels do: turned by themselves, they do not turn and copy all the state.
    gradients = {name: with_layout_constraint(g, Layout(tuple(range(g.ndim)))) for name, g in gradients.items()}
    # Without it XLA computes the scalars anew for each of the parameters.
    good, scalars, gradients = jax.lax.optimization_barrier((good, scalars, gradients))
    return jax.tree.map(functools.partial(jnp.where, good), update(learned, gradients, scalars), learned)


def compile_train_step(config: Config, mesh: Mesh, state: TrainState, weights: ClassWeights | None = None) -> Any:
    """Jits the step for a state, abstract or not, sharded as by `sharding.py`; the state given is donated."""
    shardings = (place(mesh, state), everywhere(mesh))
    return jit(make_train_step(config, weights), donate_argnums=0, out_shardings=shardings)


def _accumulated(
    value_and_grad: Callable[..., Any], params: Params, frozen: Params, batch: Batch, *, key: Array, parts: int
) -> Any:
    """Accumulates gradients over parts of the batch; every part has samples of every device."""
    if parts == 1:
        return value_and_grad(params, frozen, batch, key)

    def split(values: Array) -> Array:
        return values.reshape(-1, parts, *values.shape[1:]).swapaxes(0, 1)

    def add(sums: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(params, frozen, *part)), None

    keys = jax.random.split(key, parts)
    rows = jax.tree.map(split, batch)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(value_and_grad, params, frozen, jax.tree.map(lambda a: a[0], rows), key),
    )
    sums, _ = jax.lax.scan(add, zeros, (rows, keys))
    return jax.tree.map(lambda total: total / parts, sums)
