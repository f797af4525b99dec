"""How far the Flax encoder is from the official PyTorch code, for every configuration, size of image and output.

    python benchmarks/parity.py
    python benchmarks/parity.py --bfloat16

The second compares both in bfloat16 (PyTorch by autocast, as SAM2 is used) with PyTorch in float32.
Each official configuration is built with random weights (its position embeddings too), saved in the official layout,
converted by the real converter and loaded by `load_image_encoder`. On an accelerator, where JAX runs there and PyTorch
on the CPU, this checks the accelerator's arithmetic as well.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import torch
from absl import app, flags, logging

from emsam_jax.model import SIZES, load_image_encoder
from emsam_jax.porting import convert, parity

_SIZES = flags.DEFINE_list("sizes", list(SIZES), "Which encoders.")
_VERSIONS = flags.DEFINE_list("versions", list(parity.VERSIONS), "Which releases.")
_BFLOAT16 = flags.DEFINE_bool("bfloat16", False, "Compare root mean squares of errors in bfloat16.")
_QUICK = flags.DEFINE_bool("quick", False, "One small image each.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

SIDES: dict[str, tuple[tuple[int, int], ...]] = dict.fromkeys(SIZES, ((160, 160), (224, 224), (256, 256), (512, 384)))
SIDES["tiny"] += ((1024, 1024),)
SIDES["large"] = ((256, 256),)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    device = jax.devices()[0].device_kind
    facts = {"machine": measure.machine(device), "versions": measure.versions("jax", "flax", "torch", "sam2")}
    name = f"parity-{jax.default_backend()}"
    if _BFLOAT16.value:
        rows = [
            row for size in _SIZES.value for row in measure_bfloat16(size, (64, 96) if _QUICK.value else (256, 256))
        ]
        print(f"Results: {measure.write(f'{name}-bfloat16', {**facts, 'rows': rows}, _OUT.value)}")
        return
    rows = []
    for version in _VERSIONS.value:
        for size in _SIZES.value:
            differences = measure_encoder(size, version, ((64, 96),) if _QUICK.value else SIDES[size])
            print(f"\n{version} {size}\n{parity.table(differences)}", flush=True)
            rows += [{"version": version, "size": size, **d._asdict(), "relative": d.relative} for d in differences]
    worst = max(row["relative"] for row in rows)
    print(f"\nLargest relative difference of all: {worst:.1e} (at most {parity.TOLERANCE:.0e} is accepted)")
    print(f"Results: {measure.write(name, {**facts, 'worst_relative': worst, 'rows': rows}, _OUT.value)}")
    if not worst <= parity.TOLERANCE:
        raise SystemExit("error: the Flax encoder does not give PyTorch's numbers")


def measure_encoder(size: str, version: str, sides: tuple[tuple[int, int], ...]) -> list[parity.Difference]:
    with converted(size, version) as (official, folder):
        return parity.compare(official, load_image_encoder(folder), sides)


def measure_bfloat16(size: str, side: tuple[int, int]) -> list[dict[str, str | float]]:
    with converted(size, "sam2.1") as (official, folder):
        found = parity.compare_bfloat16(official, load_image_encoder(folder, dtype=jnp.bfloat16), side)
    print(f"\n{size}\n{'output':<18}{'ours':>9}{'autocast':>10}{'between':>9}")
    for row in found:
        print(f"{row.output:<18}{row.ours:>9.2%}{row.torch:>10.2%}{row.between:>9.2%}", flush=True)
    return [{"version": "sam2.1", "size": size, "y": side[0], "x": side[1], **row._asdict()} for row in found]


@contextlib.contextmanager
def converted(size: str, version: str) -> Iterator[tuple[Any, Path]]:
    """Yields an official image encoder with random weights, and the folder of the same in Flax."""
    torch.manual_seed(0)
    model = parity.build_official(size, version, whole=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{version}_hiera_{size}.pt"
        torch.save({"model": model.state_dict()}, checkpoint)
        convert(checkpoint, Path(folder) / "flax")
        yield model.image_encoder, Path(folder) / "flax"


if __name__ == "__main__":
    app.run(main)
