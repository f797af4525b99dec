"""The first patch of a batch through the model as it is, for pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from emsam_jax.config import Config
from emsam_jax.data import Batch
from emsam_jax.inference.calibrated import without_prior
from emsam_jax.model import jit, merge_fgnet
from emsam_jax.training.pictures import Sample
from emsam_jax.training.sharding import everywhere
from emsam_jax.training.step import Params


def make_sampler(config: Config, mesh: Mesh, prior: Sequence[float]) -> Callable[[Params, Params, Batch], Sample]:
    """Every process calls it; each gets the sample, with affinities as prediction gives them."""

    def first(params: Params, frozen: Params, batch: Batch) -> Sample:
        one = jax.tree.map(lambda rows: rows[:1], batch)
        maps = without_prior(merge_fgnet(config.model, params, frozen)(one.raw), np.asarray(prior, np.float32))
        # What nobody labelled is grey.
        truth: Any = jax.numpy.where(one.valid, one.affinities, 0.5)
        coarse: Any = None if maps.coarse is None else jax.nn.sigmoid(maps.coarse)[0]
        raw: Any = one.raw[0]
        refined: Any = jax.nn.sigmoid(maps.refined)[0]
        return Sample(raw, truth[0], coarse, refined)

    compiled = jit(first, out_shardings=everywhere(mesh))
    return lambda params, frozen, batch: jax.tree.map(np.asarray, compiled(params, frozen, batch))
