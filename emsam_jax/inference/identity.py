"""The facts that a prediction depends on: if one of them differs, its blocks are another prediction's."""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from emsam_jax.blocks import Plan, content_of
from emsam_jax.inference.predictor import AffinityModel
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.symmetry import parse_symmetries
from emsam_jax.volumes import Specimen

_NOT_THE_RESULT = ("block", "batch", "encode_once", "check", "progress")  # these change how, not what


def facts_of(
    model: AffinityModel, specimen: Specimen, settings: Prediction, plan: Plan, **more: str | int
) -> dict[str, Any]:
    """Flat, and as JSON has it."""
    grid = settings.grid()
    chosen = {k: v for k, v in dataclasses.asdict(settings).items() if k not in _NOT_THE_RESULT}
    return {
        "input": specimen.raw.url,
        "input_shape": list(specimen.raw.shape),
        "input_dtype": specimen.raw.dtype.name,
        "input_content": content_of(specimen.read_raw, plan.region),
        "input_range": list(specimen.intensity_range),
        "input_inverted": specimen.intensity.invert,
        "mask": specimen.mask.url if specimen.mask else "",
        "region": str(plan.region),
        "blocks": list(plan.block),
        "model": fingerprint(model),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()},
        "window": list(grid.window),
        "stride": list(grid.stride),
        "symmetries": [str(symmetry) for symmetry in parse_symmetries(settings.symmetries)],
        **more,
    }


def fingerprint(model: AffinityModel) -> str:
    """Of all parameters: their names, types and values."""
    found = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        values = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
