"""A trained model's forward pass as one file for CPUs, CUDA and TPUs, which runs without this software."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float

from emsam_jax.config import check_patch
from emsam_jax.inference import Calibrated, Trained, load_trained, settings_from
from emsam_jax.model import flat_state, merge_fgnet
from emsam_jax.storage import write_whole

PLATFORMS = ("cpu", "cuda", "tpu")


class ExportedModel(NamedTuple):
    window: tuple[int, ...]  # voxels z, y, x
    offsets: tuple[tuple[int, int, int], ...]  # voxels z, y, x, of each channel
    ranges: tuple[tuple[float, float], ...]  # raw values that became 0 and 1, of each training volume
    bytes: int


def export_model(path: str, out: str, window: tuple[int, ...] = ()) -> ExportedModel:
    """Writes the model's program for windows of this shape (z, y, x); by default those that it predicts by."""
    trained = load_trained(path)
    window = window or settings_from(trained.config).window
    check_patch(trained.config.model, window, "--window")
    model = portable(trained)

    def predict(windows: Float[Array, "b z y x"]) -> Float[Array, "b c z y x"]:
        b, z, y, x = windows.shape
        features = model.encode(windows.reshape(b * z, y, x, 1))
        maps = model.decode(windows[..., None], tuple(f.reshape(b, z, *f.shape[1:]) for f in features))
        return jnp.moveaxis(jax.nn.sigmoid(maps.refined.astype(jnp.float32)), -1, 1)

    shape = export.symbolic_shape(f"b, {', '.join(map(str, window))}")
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))
    content = bytes(exported.serialize())
    write_whole(out, content)
    return ExportedModel(window, trained.config.model.offsets, trained.measured.ranges, len(content))


def portable(trained: Trained) -> Calibrated:
    """Returns the model with the attention that every platform has."""
    config = trained.config.model
    encoder = dataclasses.replace(config.encoder, attention="xla", remat=False)
    params = {name: leaf.get_value() for name, leaf in flat_state(trained.model.network).items()}
    network = merge_fgnet(dataclasses.replace(config, encoder=encoder, remat=False), params, {})
    return dataclasses.replace(trained.model, network=network)


def describe_export(found: ExportedModel, out: str) -> str:
    z, y, x = found.window
    ranges = " or ".join(f"{low:g} to {high:g}" for low, high in found.ranges) or "not known"
    return (
        f"Exported: {out}, {found.bytes:,} bytes, for {', '.join(PLATFORMS)}\n"
        f"Takes float32 [b, {z}, {y}, {x}] in [0, 1] (raw values of the training that became that: {ranges})\n"
        f"Gives affinities [b, {len(found.offsets)}, {z}, {y}, {x}] of the offsets {', '.join(map(str, found.offsets))}"
    )
