"""Seconds a batch of sections takes in the Flax encoder and in the official PyTorch one, same weights, same images.

    python benchmarks/encoder.py
    python benchmarks/encoder.py --sizes=base_plus,large --attention=xla,cudnn

The first as on a CPU, in float32; the second as on a GPU, in bfloat16, against torch.compile.

Sections are batched as in training: 16 of 224 x 224, for large of 256 x 256. The two run in turn; `ratio` is the
median of torch's seconds over ours, pair by pair. On a GPU the share of the card's own measured bfloat16 matrix rate
is given too.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants the card's memory too

import jax
import jax.numpy as jnp
import measure
import numpy as np
import torch
from absl import app, flags
from rates import matrix_rate

from emsam_jax.model import SIZES, ImageEncoder, abstract_encoder, jit
from emsam_jax.model.encoder_checkpoint import fill
from emsam_jax.porting import names, parity
from emsam_jax.porting.torch_file import to_jax

_SIZES = flags.DEFINE_list("sizes", ["tiny", "base_plus", "large"], "Which encoders.")
_REPEATS = flags.DEFINE_integer("repeats", 11, "Timed runs of each.")
_SECTIONS = flags.DEFINE_integer("sections", 16, "Images a batch.")
_SIDE = flags.DEFINE_integer("side", None, "Side of an image; 224, for large 256, by default.")
_ATTENTION = flags.DEFINE_list("attention", ["xla"], "Which attention kernels of ours, on a GPU.")
_MODE = flags.DEFINE_string("torch_mode", "max-autotune", "What torch.compile is asked for, on a GPU.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")


def main(_: list[str]) -> None:
    on_gpu = jax.default_backend() == "gpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    facts: dict[str, Any] = {
        "machine": measure.machine(jax.devices()[0].device_kind),
        "versions": measure.versions("jax", "flax", "torch", "sam2"),
    }
    if on_gpu:  # a shared CPU has no rate to speak of
        facts["matrix_rate_flops"] = matrix_rate("bfloat16")
        print(f"one large bfloat16 matrix product: {facts['matrix_rate_flops'] / 1e12:.0f} TFLOP/s")
    rows = []
    for size in _SIZES.value:
        for row in measure_size(size, on_gpu):
            if on_gpu:
                row["share_of_matrix_rate"] = row["flops"] / row["flax_s"] / facts["matrix_rate_flops"]
            rows.append(row)
            print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    print(f"Results: {measure.write(f'encoder-{jax.default_backend()}', {**facts, 'rows': rows}, _OUT.value)}")


def measure_size(size: str, on_gpu: bool) -> Iterator[dict[str, Any]]:
    """A row for each of our attention kernels, all timed in turn with torch."""
    dtype = "bfloat16" if on_gpu else "float32"
    side = _SIDE.value or (256 if size == "large" else 224)
    images = np.random.default_rng(0).standard_normal((_SECTIONS.value, side, side, 3), dtype=np.float32)
    theirs, run_torch = official_runner(size, images, on_gpu)
    runners, compile_s, flops = {"torch": run_torch}, {}, 0.0
    for attention in _ATTENTION.value:
        ours = same_weights(theirs, size, dtype, attention)
        on_device = jnp.asarray(images)
        start = time.perf_counter()
        compiled = jit(lambda encoder, images: encoder(images)).lower(ours, on_device).compile()
        compile_s[attention] = time.perf_counter() - start
        flops = max(flops, float(compiled.cost_analysis()["flops"]))  # XLA doesn't see into cudnn's kernels
        runners[attention] = functools.partial(run_flax, compiled, ours, on_device)
    seconds = measure.interleave(runners, _REPEATS.value)
    for attention in _ATTENTION.value:
        yield {
            "size": size,
            "batch": f"{_SECTIONS.value} x {side} x {side}",
            "dtype": dtype,
            "attention": attention if on_gpu else "cpu",
            "torch_s": statistics.median(seconds["torch"]),
            "flax_s": statistics.median(seconds[attention]),
            "ratio": measure.median_ratio(seconds["torch"], seconds[attention]),
            "compile_s": compile_s[attention],
            "flops": flops,
        }


def same_weights(theirs: Any, size: str, dtype: str, attention: str) -> ImageEncoder:
    tensors = theirs.state_dict()
    matched = names.match({name: tuple(t.shape) for name, t in tensors.items()}, size, "the official encoder")
    params = {ours: to_jax(tensors[name].cpu(), order, "float32") for ours, (name, order) in matched.items()}
    return fill(abstract_encoder(SIZES[size], dtype=dtype, attention=attention), params)


class NoEncoding(torch.nn.Module):
    """Stands for the neck's sine position encodings, which ours leaves out: they would only cost torch time."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.new_zeros(())


def official_runner(size: str, images: np.ndarray, on_gpu: bool) -> tuple[Any, Callable[[], None]]:
    """The module and a call of it that ends when its result is there."""
    torch.manual_seed(0)
    encoder: Any = parity.build_official(size)
    encoder.neck.position_encoding = NoEncoding()
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    if not on_gpu:
        batch = batch.contiguous()

        def run_on_cpu() -> None:
            with torch.inference_mode():
                encoder(batch)

        return encoder, run_on_cpu

    encoder, batch = encoder.cuda(), batch.cuda().contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(encoder, mode=_MODE.value)

    def run_on_gpu() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            compiled(batch)
        torch.cuda.synchronize()

    return encoder, run_on_gpu


def run_flax(compiled: Any, encoder: ImageEncoder, images: jax.Array) -> None:
    jax.block_until_ready(compiled(encoder, images))


if __name__ == "__main__":
    app.run(main)
