"""How far the Flax encoder is from the official PyTorch code, for every configuration, size of image and output.

    python benchmarks/parity.py

Each official configuration is built with random weights (its position embeddings too), saved in the official layout,
converted by the real converter and loaded by `load_image_encoder`. On an accelerator, where JAX runs there and PyTorch
on the CPU, this checks the accelerator's arithmetic as well.
"""

import tempfile
from pathlib import Path

import jax
import measure
import torch
from absl import app, flags, logging

from emsam_jax.model import SIZES, load_image_encoder
from emsam_jax.porting import convert, parity

_SIZES = flags.DEFINE_list("sizes", list(SIZES), "Which encoders.")
_VERSIONS = flags.DEFINE_list("versions", list(parity.VERSIONS), "Which releases.")
_QUICK = flags.DEFINE_bool("quick", False, "One small image each.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

SIDES: dict[str, tuple[tuple[int, int], ...]] = dict.fromkeys(SIZES, ((160, 160), (224, 224), (256, 256), (512, 384)))
SIDES["tiny"] += ((1024, 1024),)
SIDES["large"] = ((256, 256),)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    rows = []
    for version in _VERSIONS.value:
        for size in _SIZES.value:
            differences = measure_encoder(size, version, ((64, 96),) if _QUICK.value else SIDES[size])
            print(f"\n{version} {size}\n{parity.table(differences)}", flush=True)
            rows += [{"version": version, "size": size, **d._asdict(), "relative": d.relative} for d in differences]
    worst = max(row["relative"] for row in rows)
    print(f"\nLargest relative difference of all: {worst:.1e} (at most {parity.TOLERANCE:.0e} is accepted)")
    device = jax.devices()[0].device_kind
    facts = {"machine": measure.machine(device), "versions": measure.versions("jax", "flax", "torch", "sam2")}
    name = f"parity-{jax.default_backend()}"
    print(f"Results: {measure.write(name, {**facts, 'worst_relative': worst, 'rows': rows}, _OUT.value)}")
    if not worst <= parity.TOLERANCE:
        raise SystemExit("error: the Flax encoder does not give PyTorch's numbers")


def measure_encoder(size: str, version: str, sides: tuple[tuple[int, int], ...]) -> list[parity.Difference]:
    torch.manual_seed(0)
    model = parity.build_official(size, version, whole=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{version}_hiera_{size}.pt"
        torch.save({"model": model.state_dict()}, checkpoint)
        convert(checkpoint, Path(folder) / "flax")
        return parity.compare(model.image_encoder, load_image_encoder(Path(folder) / "flax"), sides)


if __name__ == "__main__":
    app.run(main)
