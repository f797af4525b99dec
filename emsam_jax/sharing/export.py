"""Exports a trained model's forward pass as one file for CPUs, CUDA and TPUs, which runs without this software.

    emsam export --ckpt=runs/mine --out=mine.jax_export
    emsam export --ckpt=hf:me/mine@v1 --out=mine.jax_export --window=16,256,256

The file holds the program, as StableHLO by jax.export, with the parameters in it. It takes windows [b, z, y, x] of grey
values in [0, 1], float32, any number b of them, and gives their affinities [b, c, z, y, x]:
jax.export.deserialize(bytearray(content)).call(windows). Tiling and blending are the caller's.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float

from emsam_jax.command_line import FLAGS, define_zyx, flags, group, required
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


def define_flags() -> None:
    with group("Model"):
        flags.DEFINE_string(
            "ckpt",
            "",
            "Trained `MODEL`: a folder of a run, a checkpoint or a pushed model, or hf:OWNER/NAME[@REVISION].",
        )
        define_zyx(
            "window", int, "Shape of the windows, `z,y,x` in voxels; by default that of the model's predictions."
        )
    with group("Output"):
        flags.DEFINE_string("out", "", "Exported program, `FILE`.")


def main(_: list[str]) -> None:
    found = export_model(required("ckpt"), required("out"), FLAGS.window or ())
    z, y, x = found.window
    ranges = " or ".join(f"{low:g} to {high:g}" for low, high in found.ranges) or "not known"
    print(
        f"Exported: {FLAGS.out}, {found.bytes:,} bytes, for {', '.join(PLATFORMS)}\n"
        f"Takes float32 [b, {z}, {y}, {x}] in [0, 1] (raw values of the training that became that: {ranges})\n"
        f"Gives affinities [b, {len(found.offsets)}, {z}, {y}, {x}] of the offsets {', '.join(map(str, found.offsets))}"
    )
