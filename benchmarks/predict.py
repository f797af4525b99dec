"""Voxels a second of prediction, end to end and by stage, and what encoding each section once saves.

    python benchmarks/predict.py
    python benchmarks/predict.py --cases=large --window=16,64,64 --volume=48,32,32 --rounds=1
    python benchmarks/predict.py --cases=base_plus,large --volume=128,2048,2048 --block=128,1024,1024

The first two as on a CPU, in float32, for the demo's model and for what encoding once saves; the last as on a GPU, in
bfloat16. Parameters and volume are random, windows have a stride of half a window, affinities are stored as uint8. End
to end is from a zarr to a zarr with its ledger, reading and writing beside the device; encoding once and encoding for
every window take turns. Stages are timed in passes of their own, one after the other. The bound is what encoding once
would save if nothing but the sections it leaves out changed; the share of the matrix rate is that of one large matrix
product on the same device.
"""

import dataclasses
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
from absl import app, flags
from rates import matrix_rate

from emsam_jax.blocks import Ledger
from emsam_jax.command_line import define_zyx
from emsam_jax.config import EncoderConfig, ModelConfig, load_config
from emsam_jax.inference import Output, Prediction, Predictor
from emsam_jax.inference.predict import predict_blocks
from emsam_jax.inference.settings import window_of
from emsam_jax.model import FGNet, abstract_fgnet, flat_state
from emsam_jax.model.encoder_checkpoint import fill
from emsam_jax.volumes import Specimen, Voxel, create_volume

_CASES = flags.DEFINE_list("cases", None, "demo, or sizes of the encoder; by default demo, on a GPU base_plus,large.")
_VOLUME = define_zyx("volume", int, "z,y,x in voxels.")
_BLOCK = define_zyx("block", int, "z,y,x in voxels; the default of prediction if empty.")
_WINDOW = define_zyx("window", int, "z,y,x in voxels; by default what the model is trained on.")
_BATCH = flags.DEFINE_integer("batch", 0, "Windows at once; 0: as prediction chooses.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed turns of each.")
_QUICK = flags.DEFINE_bool("quick", False, "A tiny model and volume: does it run at all?")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

VOXEL_SIZE = (40.0, 4.0, 4.0)
STAGES = ("read", "cut", "encode", "decode", "blend", "finish", "write")


@dataclasses.dataclass
class Case:
    model: ModelConfig
    window: Voxel


def main(_: list[str]) -> None:
    on_gpu = jax.default_backend() == "gpu"
    names = ["quick"] if _QUICK.value else _CASES.value or (["base_plus", "large"] if on_gpu else ["demo"])
    default = (4, 32, 32) if _QUICK.value else (128, 2048, 2048) if on_gpu else (16, 192, 192)
    z, y, x = _VOLUME.value or default
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        raw = create_volume(Path(folder) / "raw.zarr", (z, y, x), "uint8", VOXEL_SIZE)
        raw[...] = np.random.default_rng(0).integers(0, 256, raw.shape, dtype=np.uint8)
        for name in names:
            case = case_of(name, on_gpu)
            if _WINDOW.value:
                case.window = _WINDOW.value
            rows.append({"case": name, **measure_case(case, Specimen(raw), Path(folder))})
            print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    facts = {
        "machine": measure.machine(jax.devices()[0].device_kind),
        "versions": measure.versions("jax", "flax", "tensorstore"),
    }
    name = f"predict_{'_'.join(names)}-{jax.default_backend()}"
    path = measure.write(name, {**facts, "volume": [z, y, x], "rows": rows}, _OUT.value)
    print(f"Results: {path}")


def case_of(name: str, on_gpu: bool) -> Case:
    if name == "quick":
        toy = EncoderConfig(size="toy")
        return Case(ModelConfig(encoder=toy, projected=4, channels=(4, 4), norm_groups=2, coarse=False), (4, 32, 32))
    if name == "demo":
        config = load_config(str(Path(__file__).parents[1] / "emsam_jax/configs/demo.py"))
        return Case(config.model, window_of(config))
    encoder: Any = EncoderConfig(size=name, attention="cudnn" if on_gpu else "xla")  # type: ignore[arg-type]
    side = {"none": 160, "large": 256}.get(name, 224)
    return Case(ModelConfig(encoder=encoder, dtype="bfloat16" if on_gpu else "float32"), (16, side, side))


def measure_case(case: Case, specimen: Specimen, folder: Path) -> dict[str, Any]:
    model = random_model(case.model)
    settings = Prediction(
        window=case.window, block=_BLOCK.value or (), dtype="uint8", batch=_BATCH.value, progress=False
    )
    output = Output(str(folder / "plan"), specimen, settings, specimen.region, case.model.offsets)
    watch = Watch()
    predictors = {
        name: Predictor(model, dataclasses.replace(settings, encode_once=once), output.plan, watch=watch)
        for name, once in {"once": True, "plain": False}.items()
    }
    voxels = specimen.region.voxels
    runs: dict[str, Callable[[], object]] = {
        name: lambda predictor=predictor: run(predictor, specimen, settings, folder)
        for name, predictor in predictors.items()
    }
    seconds = measure.interleave(runs, 1 if _QUICK.value else _ROUNDS.value)
    stages = {name: watch.time(predictor, specimen, settings, folder) for name, predictor in predictors.items()}
    counts = work_of(predictors["once"])
    flops_section, flops_window = flops_of(model, case.window)
    flops = counts["sections_once"] * flops_section + counts["windows"] * flops_window
    rate = matrix_rate(case.model.dtype, 512 if _QUICK.value else 8192 if case.model.dtype == "bfloat16" else 2048)
    all_plain = sum(stages["plain"].values())
    encoding = max(0.0, stages["plain"]["decode"] - stages["once"]["decode"])  # plain encodes as it decodes
    fewer = 1 - counts["sections_once"] / counts["sections_plain"]
    once_s = statistics.median(seconds["once"])
    return {
        "model": f"{case.model.encoder.size} {case.model.dtype} {'x'.join(map(str, case.window))}",
        "block": list(output.plan.block),
        "batch": str(predictors["once"].fitted.batch),
        "mvoxel_per_s": voxels / once_s / 1e6,
        "mvoxel_per_s_plain": voxels / statistics.median(seconds["plain"]) / 1e6,
        "saving": measure.median_ratio(seconds["plain"], seconds["once"]),
        "saving_bound": all_plain / (all_plain - encoding * fewer),
        "encoder_share_plain": encoding / all_plain,
        **counts,
        "windows_a_voxel": counts["windows"] * float(np.prod(case.window)) / voxels,
        "tflops": flops / once_s / 1e12,
        "share_of_matrix_rate": flops / once_s / rate,
        "stages_s": {name: {k: round(v, 4) for k, v in found.items()} for name, found in stages.items()},
    }


def random_model(config: ModelConfig) -> FGNet:
    rng, module = np.random.default_rng(0), abstract_fgnet(config)
    shapes = {name: leaf.shape for name, leaf in flat_state(module).items()}
    return fill(module, {name: 0.02 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()})


def run(predictor: Predictor, specimen: Specimen, settings: Prediction, folder: Path) -> None:
    """Volume to volume, as predict_affinities does it once all is compiled."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        output = Output(out, specimen, settings, specimen.region, predictor.sweep.offsets)
        output.open()
        ledger = Ledger(output.ledger_url, "predict", {})
        for _ in predict_blocks(predictor, specimen, output, ledger, list(output.plan)):
            pass


class Watch:
    """Seconds by stage, where each waits for the one before; nothing while `on` is off."""

    def __init__(self) -> None:
        self.on, self.last = False, 0.0
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(self, stage: str, result: Any) -> None:
        if self.on:
            jax.block_until_ready(result)
            now = time.perf_counter()
            self.seconds[stage] += now - self.last
            self.last = now

    def time(self, predictor: Predictor, specimen: Specimen, settings: Prediction, folder: Path) -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            output = Output(out, specimen, settings, specimen.region, predictor.sweep.offsets)
            output.open()
            self.seconds = defaultdict(float)
            self.on, self.last = True, time.perf_counter()
            for block in output.plan:
                region = predictor.read(specimen, block.box)
                self("read", region.raw)
                found = predictor.predict(region)
                self("finish", found)
                output.write(block, predictor.fetch(found, block.box))
                self("write", None)
            self.on = False
        return {stage: self.seconds[stage] for stage in STAGES}


def work_of(predictor: Predictor) -> dict[str, int]:
    """How many windows are decoded and how many sections encoded, once and for every window."""
    windows = once = 0
    for block in predictor.plan:
        z, y, x = (predictor.grid.starts(axis, block.box.start[axis], block.box.stop[axis]) for axis in range(3))
        read = predictor.extent.read_box(block.box)
        windows += len(z) * len(y) * len(x)
        once += len(y) * len(x) * read.shape[0]
    return {"windows": windows, "sections_once": once, "sections_plain": windows * predictor.grid.window[0]}


def flops_of(model: FGNet, window: Voxel) -> tuple[float, float]:
    """Of encoding one section and of decoding one window, as the program asks for them."""
    z, y, x = window
    raw = jax.ShapeDtypeStruct((1, z, y, x, 1), jnp.float32)
    section = jax.ShapeDtypeStruct((1, y, x, 1), jnp.float32)
    seen = jax.eval_shape(lambda m, s: m.encode(s), model, section)
    features = tuple(jax.ShapeDtypeStruct((1, z, *f.shape[1:]), f.dtype) for f in seen)

    def count(function: Callable[..., Any], *shapes: Any) -> float:
        return float((jax.jit(function).lower(model, *shapes).cost_analysis() or {}).get("flops", 0.0))

    return (
        count(lambda m, s: m.encode(s), section) if seen else 0.0,
        count(lambda m, r, f: m.decode(r, f), raw, features),
    )


if __name__ == "__main__":
    app.run(main)
