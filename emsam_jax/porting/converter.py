"""Converts a SAM2 checkpoint to Flax: reads, recognises, matches, writes, and compares with the official encoder."""

import datetime
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint

from emsam_jax.errors import UserError
from emsam_jax.model import FACTS_FILE, FlatParams, load_image_encoder, writing_image_encoder
from emsam_jax.porting import names, parity
from emsam_jax.porting.download import sha256
from emsam_jax.porting.parity import build_official
from emsam_jax.porting.torch_file import import_torch, read_tensors, to_jax

VERIFIED_SIDES = ((160, 160), (224, 224), (256, 256), (96, 288))


def convert(
    checkpoint: Path, out: Path, *, dtype: str = "float32", overwrite: bool = False, verify: bool = False
) -> str:
    """Writes the checkpoint to the folder `out` and returns a table of what was done."""
    refuse_to_overwrite(out, overwrite)
    encoder, left_out = names.encoder_tensors(read_tensors(checkpoint), str(checkpoint))
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.items()}
    size = names.recognise_size(shapes, str(checkpoint))
    matched = names.match(shapes, size, str(checkpoint))
    params: FlatParams = {ours: to_jax(encoder.pop(theirs), order, dtype) for ours, (theirs, order) in matched.items()}
    refuse_non_finite(params, {ours: theirs for ours, (theirs, _) in matched.items()}, checkpoint)

    facts: dict[str, Any] = {
        "model": f"SAM2 image encoder, Hiera {size} with FPN neck",
        "size": size,
        "dtype": dtype,
        "parameters": sum(array.size for array in params.values()),
        "tensors": len(params),
        "left_out": dict(sorted(left_out.items())),
        "source": {"file": checkpoint.name, "sha256": sha256(checkpoint)},
        "versions": {
            "jax": jax.__version__,
            "flax": flax.__version__,
            "orbax-checkpoint": orbax.checkpoint.__version__,
            "torch": import_torch().__version__,
        },
        "converted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with writing_image_encoder(out, params, facts) as written:
        comparison = compare_with_official(written, size, params, matched) if verify else ""
    return comparison + summary(facts, out)


def refuse_to_overwrite(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise UserError(f"{out} exists already: choose another --out, or give --overwrite to replace it.")
    if not (out / FACTS_FILE).exists():
        raise UserError(f"{out} is no converted encoder (no {FACTS_FILE} in it), so --overwrite leaves it alone.")


def refuse_non_finite(params: FlatParams, torch_names: dict[str, str], checkpoint: Path) -> None:
    broken = sorted(torch_names[name] for name, array in params.items() if not jnp.isfinite(array).all())
    if broken:
        raise UserError(
            f"{checkpoint}: expected finite weights; {len(broken)} tensors hold NaN or infinity, "
            f"{', '.join(broken[:5])} among them. The file is damaged: fetch it again."
        )


def compare_with_official(
    written: Path, size: str, params: FlatParams, matched: dict[str, tuple[str, tuple[int, ...]]]
) -> str:
    """Returns the table of differences; refuses a checkpoint that gives other numbers than the official encoder."""
    torch = import_torch()
    official = build_official(size)
    state = {}
    for ours, (theirs, order) in matched.items():
        inverse = [order.index(axis) for axis in range(len(order))]
        state[theirs] = torch.from_numpy(np.array(params[ours], np.float32).transpose(inverse))
    official.load_state_dict(state)
    differences = parity.compare(official, load_image_encoder(written), VERIFIED_SIDES)
    worst = parity.worst(differences)
    table = parity.table(differences)
    if not worst.relative <= parity.TOLERANCE:
        raise UserError(
            f"{table}\nThe Flax encoder differs from the official one by {worst.relative:.1e} of the largest value "
            f"({worst.output}, {worst.y} x {worst.x}); expected at most {parity.TOLERANCE:.0e}. Nothing was written."
        )
    return f"{table}\n\nLargest relative difference {worst.relative:.1e}: the same numbers as PyTorch.\n\n"


def summary(facts: dict[str, Any], out: Path) -> str:
    left_out = ", ".join(f"{part} {count}" for part, count in facts["left_out"].items())
    rows = {
        "read": f"{facts['source']['file']}, sha256 {facts['source']['sha256'][:16]}...",
        "encoder": facts["model"],
        "converted": f"{facts['tensors']} tensors, {facts['parameters']:,} parameters, {facts['dtype']}",
        "left out": f"{left_out} (parts that segmentation of EM does not use)" if left_out else "nothing",
        "written": str(out),
    }
    return "\n".join(f"{name:<10} {value}" for name, value in rows.items())
