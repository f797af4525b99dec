"""What training and prediction need on accelerators that are not here: the tables of docs/accelerators.md.

    python benchmarks/targets.py --cases=demo@h200,collectives@8xh200

compiles some cases, by the compilers of pip install 'emsam-jax[gpu]' and [tpu], puts them into results/targets.json
and writes the page's tables from all that is there. A case takes from ten seconds to minutes of a core.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
from flax import nnx
from jax.sharding import SingleDeviceSharding
from target_tables import ATTENTION, EVERY, Case, with_tables

from emsam_jax.blocks import plan_blocks
from emsam_jax.config import Config, DataConfig, ModelConfig, OptimConfig, load_config
from emsam_jax.inference import bound_prediction, settings_from
from emsam_jax.model import SIZES, ImageEncoder, abstract_fgnet, program_bytes
from emsam_jax.targets import COMPILER_OPTIONS, devices_of, parse_target
from emsam_jax.targets.program import read_program
from emsam_jax.training import sharding
from emsam_jax.training.bounds import bound_step
from emsam_jax.training.plan import compile_step, put
from emsam_jax.training.sharding import make_mesh
from emsam_jax.volumes import box_of

PAGE = Path(__file__).parents[1] / "docs/accelerators.md"
VOLUME = (64, 512, 512)  # voxels z, y, x, of the predictions
CUBE = (256, 256, 256)  # of an isotropic one's
# Kernels of 16 and 32 channels and no encoder: what sharding asks for is the same, and compiled in seconds.
SHARDED = Config(model=ModelConfig(channels=(16, 32)), data=DataConfig(patch=(2, 32, 32)), optim=OptimConfig(batch=16))
SHARD_FROM = 2**12  # values, in that config, whose parameters would all be replicated
COMPILERS = {"cuda": "jax-cuda12-pjrt", "tpu": "libtpu"}
SIDE = 224  # pixels, of the images that are encoded


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="", help=f"some of {', '.join(EVERY)}")
    parser.add_argument("--here", action="store_true", help="this machine's devices stand for the targets")
    parser.add_argument("--programs", default="", help="folder of HLO by case, read where it is there, written else")
    parser.add_argument("--out", help="folder of the results, in place of results/ and the page")
    given = parser.parse_args(arguments)
    names = [name for name in given.cases.split(",") if name]
    if unknown := set(names) - EVERY.keys():
        parser.error(f"--cases: there is no {min(unknown)!r}; expected some of {', '.join(EVERY)}")
    folder = Path(given.out) if given.out else measure.RESULTS
    file = folder / "targets.json"
    rows = json.loads(file.read_text())["cases"] if file.exists() else {}
    for name in names:
        case = EVERY[name]
        devices = jax.devices() if given.here else devices_of(parse_target(case.target))
        rows[name] = {**measured(case, devices, given.programs), **dated(case)}
        measure.write("targets", {"cases": {each: rows[each] for each in EVERY if each in rows}}, str(folder))
    if not given.out:
        PAGE.write_text(with_tables(PAGE.read_text(), rows))


def measured(case: Case, devices: list[Any], programs: str) -> dict[str, Any]:
    if case.config == "collectives":
        return collectives_of(case, devices, Path(programs) if programs else None)
    if case.config.startswith("predict "):
        return prediction_of(case, devices)
    if case in ATTENTION:
        return attention_of(case, devices[0])
    config = load_config(case.config, [])
    config = put(dataclasses.replace(config, fsdp=case.fsdp), batch=case.batch or config.optim.batch)
    started = time.process_time()
    needs = bound_step(config, parse_target(case.target), devices).needs
    if needs is None:
        return {"fits": False}
    return {
        "compiling_s": round(time.process_time() - started),  # of a core
        "batch": config.optim.batch,
        "patch": list(config.data.patch),
        "dtype": config.model.dtype,
        "bytes": needs.bytes,
        "fits": needs.bytes <= parse_target(case.target).card.room,
        "flops": needs.flops,
        "moved": needs.program.bytes,
        "useful": needs.program.useful,
        "kernels": needs.program.kernels,
        "transposes": needs.program.transposes,
        "copies": needs.program.copies,
        "seconds": needs.least,
        "by": needs.by,
        "layers": needs.program.layers,
    }


def prediction_of(case: Case, devices: list[Any]) -> dict[str, Any]:
    config = load_config(case.config.removeprefix("predict "), [])
    settings, shape = settings_from(config), CUBE if config.model.isotropic else VOLUME
    whole = plan_blocks(box_of(shape), box_of(shape), settings.block_shape((1, 1, 1), shape), (1, 1, 1))
    found = bound_prediction(
        abstract_fgnet(config.model), settings, whole, parse_target(case.target), devices, dtype=config.model.dtype
    )
    if found is None:
        return {"fits": False}
    return {
        "shape": list(shape),
        "window": list(settings.window),
        "windows": found.windows,
        "at_once": found.at_once,
        "bytes": found.bytes,
        "fits": True,
        "host_bytes": (found.sent + found.fetched) * len(whole),
        "seconds": found.least,
        "programs": {
            each.name: {
                "calls": each.calls,
                "flops": each.needs.flops,
                "moved": each.needs.program.bytes,
                "kernels": each.needs.program.kernels,
                "transposes": each.needs.program.transposes,
                "copies": each.needs.program.copies,
                "seconds": each.needs.least,
                "by": each.needs.by,
            }
            for each in found.programs
        },
    }


def collectives_of(case: Case, devices: list[Any], programs: Path | None) -> dict[str, Any]:
    config = dataclasses.replace(SHARDED, fsdp=case.fsdp)
    stored = programs / f"{re.sub(r'[^a-z0-9]', '_', case.name)}.hlo" if programs else None
    if stored and stored.exists():
        text = stored.read_text()
    else:
        sharding.SHARD_FROM = SHARD_FROM
        # On TPUs with the effort that training has: with less, sums are sent in other pieces.
        options = COMPILER_OPTIONS["gpu"] if devices[0].platform == "gpu" else None
        step = compile_step(config, make_mesh(case.fsdp, devices), options)
        text = step.as_text()
        if stored:
            stored.write_text(text)
    program = read_program(text)
    mesh = [parse_target(case.target).devices // case.fsdp, case.fsdp]
    return {"mesh": mesh, "collectives": program.collectives, "sent": program.sent}


def attention_of(case: Case, device: Any) -> dict[str, Any]:
    """Compiles the image encoder in bfloat16, or its gradients by parameters, with one of the attention kernels."""
    what, size, kernel = case.config.split()
    here = SingleDeviceSharding(device)
    network, params = nnx.split(
        nnx.eval_shape(
            lambda: ImageEncoder(SIZES[size], dtype=jnp.bfloat16, attention=kernel, rngs=nnx.Rngs(0))  # type: ignore[reportArgumentType]
        )
    )
    images = jax.ShapeDtypeStruct((case.batch, SIDE, SIDE, 3), jnp.float32)

    def encode(params: Any, images: jax.Array) -> Any:
        return nnx.merge(network, params)(images)

    def loss(params: Any, images: jax.Array) -> jax.Array:
        return sum(
            (jnp.sum(each.astype(jnp.float32)) for each in jax.tree.leaves(encode(params, images))), jnp.float32(0)
        )

    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), (params, images))
    options = COMPILER_OPTIONS.get(device.platform)
    compiled = (
        jax.jit(encode if what == "encode" else jax.grad(loss), compiler_options=options).lower(*arguments).compile()
    )
    program = read_program(compiled.as_text() or "")
    return {
        "kernels": program.kernels,
        "moved": program.bytes,
        "transposes": program.transposes,
        "fused": sum(number for name, number in program.libraries.items() if "fmha" in name),
        "products": sum(number for name, number in program.libraries.items() if "cublas" in name),
        "bytes": program_bytes(compiled),
    }


def dated(case: Case) -> dict[str, str]:
    package = COMPILERS[parse_target(case.target).card.platform]
    try:
        compiler = f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        compiler = "this machine's"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "compiler": f"jax {jax.__version__}, {compiler}"}


if __name__ == "__main__":
    main()
