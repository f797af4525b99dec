"""Seconds a training step takes here and in PyTorch: the same network, loss and optimiser, in turn.

    python benchmarks/train_step.py                                             on a CPU: demo and baseline, float32
    python benchmarks/train_step.py --cases=frozen,finetuned --notime           on a CPU: memory
    python benchmarks/train_step.py --cases=baseline,frozen,finetuned,large --compile      on a GPU, in bfloat16
    python benchmarks/train_step.py --cases=large --kernels                                where the time of ours goes

`ratio` is the median of torch's seconds over ours, pair by pair. `flops` are those of the step before compilation;
on a GPU their share of its own measured bfloat16 matrix rate is given too. torch has its own best settings:
channels-last, on a GPU autocast to bfloat16, a fused optimiser, and torch.compile with --compile.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants the card's memory too

import jax
import jax.numpy as jnp
import measure
import numpy as np
import torch
import torch_fgnet
from absl import app, flags
from flax import nnx
from rates import matrix_rate

from emsam_jax.config import Config, EncoderConfig, ModelConfig
from emsam_jax.data import Batch
from emsam_jax.model import FGNet, jit, jit_once, split_fgnet
from emsam_jax.training.cost import count_flops
from emsam_jax.training.state import create_state
from emsam_jax.training.step import make_train_step

_PROFILED, _SHOWN = 5, 60  # steps, kernels


class Case(NamedTuple):
    patch: tuple[int, int, int]  # z, y, x
    model: ModelConfig
    batch: int = 1


DEMO = ModelConfig(encoder=EncoderConfig(size="toy", frozen=False), projected=16, channels=(8, 16, 24))
BASE = ModelConfig(encoder=EncoderConfig("base_plus", weights="random"))
CASES = {
    "demo": Case((8, 96, 96), DEMO),
    "demo_pairs": Case((8, 96, 96), DEMO, batch=2),  # for one patch PyTorch does without its fast convolutions
    "baseline": Case((18, 160, 160), ModelConfig(encoder=EncoderConfig(size="none"), channels=(28, 36, 48, 64, 80))),
    "frozen": Case((16, 224, 224), BASE, batch=4),
    "finetuned": Case((16, 224, 224), dataclasses.replace(BASE, encoder=EncoderConfig("base_plus", frozen=False)), 4),
    "large": Case((16, 256, 256), ModelConfig(encoder=EncoderConfig("large", weights="random")), batch=4),
    "large_finetuned": Case((16, 256, 256), ModelConfig(encoder=EncoderConfig(size="large", frozen=False)), batch=4),
}
QUICK = {"quick": Case((2, 16, 16), ModelConfig(encoder=EncoderConfig(size="none"), channels=(4,)))}

_CASES = flags.DEFINE_list("cases", ["demo", "demo_pairs", "baseline"], f"Which: {', '.join(CASES)}.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Computed in; float32 on a CPU by default.")
_BATCH = flags.DEFINE_integer("batch", None, "Patches a step; each case has its own by default.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed steps of each.")
_COMPILE = flags.DEFINE_bool("compile", False, "torch.compile the peer; needs a compiler.")
_TIME = flags.DEFINE_bool("time", True, "Without it steps are compiled and not run, for the memory that they take.")
_KERNELS = flags.DEFINE_bool("kernels", False, "Profile our step alone: seconds by kernel, on a CPU by operation.")
_QUICK = flags.DEFINE_bool("quick", False, "One tiny case, once: does it run at all?")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")


def main(_: list[str]) -> None:
    on_gpu = jax.default_backend() == "gpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dtype = _DTYPE.value or ("bfloat16" if on_gpu else "float32")
    facts: dict[str, Any] = {
        "machine": measure.machine(jax.devices()[0].device_kind),
        "versions": measure.versions("jax", "flax", "torch"),
        "dtype": dtype,
    }
    if on_gpu and _TIME.value and not _KERNELS.value:  # a shared CPU has no rate to speak of
        facts["matrix_rate_flops"] = matrix_rate(dtype)
        print(f"one large {dtype} matrix product: {facts['matrix_rate_flops'] / 1e12:.0f} TFLOP/s")
    rows = []
    for name, case in (QUICK if _QUICK.value else {name: CASES[name] for name in _CASES.value}).items():
        row = {"case": name, **measure_case(case, dtype, on_gpu)}
        if "matrix_rate_flops" in facts:
            row["share_of_matrix_rate"] = row["flops"] / row["flax_s"] / facts["matrix_rate_flops"]
        rows.append(row)
        told = {name: value for name, value in row.items() if name != "kernels"}
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items()), flush=True)
    kind = "train_kernels" if _KERNELS.value else "train_step" if _TIME.value else "train_memory"
    print(f"Results: {measure.write(f'{kind}-{jax.default_backend()}', {**facts, 'rows': rows}, _OUT.value)}")


def measure_case(case: Case, dtype: str, on_gpu: bool) -> dict[str, Any]:
    batch = _BATCH.value or case.batch
    config = dataclasses.replace(Config(), model=dataclasses.replace(case.model, dtype=dtype))
    arrays = random_batch((batch, *case.patch), len(case.model.offsets))
    start = time.perf_counter()
    flax_step, flax_mib = our_step(config, arrays)
    compile_s = time.perf_counter() - start
    shape = f"{batch} x {' x '.join(map(str, case.patch))}"
    if not _TIME.value:
        return {"batch": shape, "flax_mib": flax_mib, "compile_s": compile_s}
    if _KERNELS.value:
        return {"batch": shape, "compile_s": compile_s, **profile(flax_step)}
    torch_step = their_step(config, arrays, on_gpu)
    losses = {"flax_loss": flax_step(), "torch_loss": torch_step()}
    repeats = 1 if _QUICK.value else _REPEATS.value
    seconds = measure.interleave({"flax": flax_step, "torch": torch_step}, repeats)
    flax_s, torch_s = (statistics.median(seconds[name]) for name in ("flax", "torch"))
    flops = batch * count_flops(case.model, case.patch, training=True)
    return {
        "batch": shape,
        "flax_s": flax_s,
        "torch_s": torch_s,
        "ratio": measure.median_ratio(seconds["torch"], seconds["flax"]),
        "flax_patches_a_s": batch / flax_s,
        "torch_patches_a_s": batch / torch_s,
        "flops": flops,
        "flax_flops_a_s": flops / flax_s,
        "flax_mib": flax_mib,
        "torch_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        "compile_s": compile_s,
        **losses,
    }


def profile(step: Callable[[], float]) -> dict[str, Any]:
    """Seconds of a step, and of its kernels, those first that take longest."""
    step()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with jax.profiler.trace(folder):
            for _ in range(_PROFILED):
                step()
        step_s = (time.perf_counter() - start) / _PROFILED
        (trace,) = Path(folder).rglob("*.xplane.pb")
        planes = [*jax.profiler.ProfileData.from_file(str(trace)).planes]
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    seconds, calls = defaultdict[str, float](float), defaultdict[str, int](int)
    for line in (line for plane in devices or planes for line in plane.lines):
        for event in line.events if not devices or line.name.startswith("Stream") else ():
            if devices or any(name == "hlo_op" for name, _ in event.stats):
                seconds[event.name] += event.duration_ns / 1e9 / _PROFILED
                calls[event.name] += 1
    longest = sorted(seconds, key=lambda name: -seconds[name])[:_SHOWN]
    rows = [{"kernel": name, "s": seconds[name], "calls": calls[name] / _PROFILED} for name in longest]
    return {"step_s": step_s, "kernels_s": sum(seconds.values()), "kernels": rows}


def random_batch(shape: tuple[int, ...], channels: int) -> Batch:
    rng = np.random.default_rng(0)
    raw = rng.random((*shape, 1), dtype=np.float32)
    affinities = (rng.random((*shape, channels)) < 0.9).astype(np.float32)
    return Batch(*map(jnp.asarray, (raw, affinities, rng.random((*shape, channels)) < 0.95)))


def our_step(config: Config, batch: Batch) -> tuple[Callable[[], float], float]:
    """A call makes one step and gives its loss; and MiB that the compiled step takes."""
    model = jit_once(lambda: FGNet(config.model, rngs=nnx.Rngs(0)))()
    params, frozen = split_fgnet(model)
    state = jax.jit(lambda params: create_state(config, params))(params)
    step = jit(make_train_step(config), donate_argnums=0).lower(state, frozen, batch).compile()
    memory = step.memory_analysis()
    states = iterate(lambda state: step(state, frozen, batch), state)
    return lambda: next(states), (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20


def iterate(step: Callable[[Any], tuple[Any, Any]], state: Any) -> Iterator[float]:
    while True:
        state, metrics = step(state)
        yield float(jax.block_until_ready((state, metrics))[1]["loss"])


def their_step(config: Config, batch: Batch, on_gpu: bool) -> Callable[[], float]:
    torch.manual_seed(0)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    model = torch_fgnet.TorchFGNet(config.model).train().to("cuda" if on_gpu else "cpu")
    return torch_fgnet.make_step(
        model,
        [torch.from_numpy(np.array(a)).movedim(-1, 1) for a in batch],
        half=config.model.dtype == "bfloat16",
        compiled=_COMPILE.value,
        most=config.loss.max_weight,
        clip=config.optim.clip,
        decay=config.optim.ema,
    )


if __name__ == "__main__":
    app.run(main)
