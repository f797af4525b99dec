"""Counts what a model costs before any parameter exists: parameters, operations, memory."""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from emsam_jax.config import ModelConfig, check_patch
from emsam_jax.model import FGNet, Maps, abstract_fgnet, jit, max_pool, merge_fgnet, program_bytes, split_fgnet
from emsam_jax.targets import count_operations

Patch = tuple[int, int, int]  # z, y, x
BYTES = 4  # of a float32
COPIES = 5  # of a trained parameter: itself, its gradient, AdamW's two moments, the running mean


class Parts(NamedTuple):
    trained: dict[str, int]  # parameters by part of the model
    frozen: dict[str, int]

    def bytes(self) -> int:
        """Returns the bytes of all that a training keeps for the parameters."""
        return BYTES * (COPIES * sum(self.trained.values()) + sum(self.frozen.values()))


def count_parameters(config: ModelConfig) -> Parts:
    counted = []
    for part in _abstract_parameters(config):
        sizes: collections.Counter[str] = collections.Counter()
        for name, leaf in part.items():
            sizes[name.split(".")[0]] += leaf.size
        counted.append(dict(sizes))
    return Parts(*counted)


def shapes_of(config: ModelConfig, patch: Patch) -> dict[str, tuple[int, ...]]:
    """Returns the shapes z, y, x, c of each level's output for one patch."""
    check_patch(config, patch, "config.data.patch")
    raw = jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)

    def levels(model: FGNet, raw: jax.Array) -> list[jax.Array]:
        x, found = model.fine_encoder.enter(raw), []
        for number, block in enumerate(model.fine_encoder.blocks):
            x = block(max_pool(x, model.fine_encoder.pool) if number else x)
            found.append(x)
        return found

    model = abstract_fgnet(config)
    seen = jax.eval_shape(lambda model, raw: model.encode(raw[0]), model, raw)
    shapes = {f"image features, stride {s}": f.shape for s, f in zip(model.strides, seen, strict=True)}
    fine = jax.eval_shape(levels, model, raw)
    shapes |= {f"fine encoder, level {number}": f.shape[1:] for number, f in enumerate(fine)}
    maps = jax.eval_shape(lambda model, raw: model(raw), model, raw)
    return shapes | {f"{name} map": m.shape[1:] for name, m in maps._asdict().items() if m is not None}


def count_flops(config: ModelConfig, patch: Patch, *, training: bool) -> float:
    """Counts the operations of one patch."""
    return count_operations(_gradient(config) if training else _forward(config), *_arguments(config, patch))


def gradient_bytes(config: ModelConfig, patch: Patch) -> int:
    """What computing a patch's gradient takes, its parameters and results included, as compiled for this machine."""
    return program_bytes(jit(_gradient(config)).lower(*_arguments(config, patch)).compile())


def _abstract_parameters(config: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    return split_fgnet(abstract_fgnet(config))


def _arguments(config: ModelConfig, patch: Patch) -> tuple[Any, Any, jax.ShapeDtypeStruct]:
    return *_abstract_parameters(config), jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)


def _forward(config: ModelConfig) -> Any:
    def forward(trained: Any, frozen: Any, raw: jax.Array) -> Maps:
        return merge_fgnet(config, trained, frozen)(raw)

    return forward


def _gradient(config: ModelConfig) -> Any:
    """Computes the gradient of the trained parameters, for a loss that costs next to nothing."""

    def loss(trained: Any, frozen: Any, raw: jax.Array) -> jax.Array:
        return sum((jnp.mean(m**2) for m in _forward(config)(trained, frozen, raw) if m is not None), jnp.zeros(()))

    return jax.value_and_grad(loss)
