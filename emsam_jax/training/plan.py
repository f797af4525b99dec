"""Measures what fits and how long it takes on the devices at hand: `emsam train --config=... --plan`."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from emsam_jax.config import STRIDE, Config, check_patch, check_weights
from emsam_jax.data import Batch
from emsam_jax.inference import free_bytes
from emsam_jax.model import program_bytes, warn_of_padding
from emsam_jax.targets import GIB, if_it_fits
from emsam_jax.training.sharding import make_mesh, over_devices
from emsam_jax.training.state import abstract_state, new_state
from emsam_jax.training.step import compile_train_step
from emsam_jax.training.stream import abstract_batch

SMALL_CARD = 24 * GIB
STEPS = 3  # timed, after one that is not
WORTH = 1.05  # factor by which a batch twice as large must raise the patches a second, for a larger one to be tried


class Trial(NamedTuple):
    config: Config
    bytes: int  # on each device; 0 where not even compiling fits
    seconds: float | None  # a step; None where it does not fit

    @property
    def rate(self) -> float:
        """Returns patches a second."""
        return self.config.optim.batch / self.seconds if self.seconds else 0.0

    def row(self) -> str:
        z, y, x = self.config.data.patch
        size = f"{self.bytes / GIB:.2f}" if self.bytes else "-"
        start = f"  {f'{z} x {y} x {x}':<16}{self.config.optim.batch:>6}{size:>11}"
        if self.seconds is None:
            return f"{start}  does not fit"
        hours = self.seconds * self.config.optim.steps / 3600
        return f"{start}{1 / self.seconds:>10.3g}{self.rate:>12.3g}{hours:>10.1f}"


def plan(
    config: Config,
    devices: Sequence[Any] | None = None,
    *,
    limit: int = 0,
    say: Callable[[str], None] = print,
    note: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> Trial | None:
    """Prints what is measured and found, and returns the best; `limit` stands for the devices' own bytes."""
    mesh = make_mesh(config.fsdp, devices)
    device = mesh.devices.flat[0]
    limit = limit or free_bytes(device) or sys.maxsize
    check_patch(config.model, config.data.patch, "config.data.patch")
    if not config.init_from:
        check_weights(config.model.encoder)
    warning = warn_of_padding(config.model, config.data.patch)
    memory = "memory unknown" if limit == sys.maxsize else f"{limit / GIB:.1f} GiB on each"
    say(f"{config.name or 'training'} on {mesh.size} x {device.device_kind}, {memory}")
    if warning:
        say(f"Warning: {warning}")
    say(f"  {'patch z, y, x':<16}{'batch':>6}{'GiB each':>11}{'steps/s':>10}{'patches/s':>12}{'hours':>10}")
    best = None
    for trial in _trials(config, mesh, limit, note):
        say(trial.row())
        best = trial if best is None or trial.rate > best.rate else best
    if best is None or best.seconds is None:
        say("Nothing fits.")
    else:
        z, y, x = best.config.data.patch
        say(f"Fastest: --config.data.patch=({z},{y},{x}) --config.optim.batch={best.config.optim.batch}")
        say(f"Hours are those of config.optim.steps, {config.optim.steps}, without reading and validation.")
    say(f"For a card of {SMALL_CARD / GIB:.0f} GiB, by the memory of what is compiled for {device.platform}:")
    for words, lowered in savings(put(config, batch=mesh.size * config.optim.accumulate)):
        note(f"  compiling {words}")
        step = if_it_fits(compile_step, lowered, mesh)
        if step is None:
            say(f"  {words:<58}  does not fit to be compiled")
            continue
        size = program_bytes(step)
        say(f"  {words:<58}{size / GIB:>8.2f} GiB on each device")
        if size <= SMALL_CARD:
            break
    return best if best is not None and best.seconds else None


def measure(config: Config, devices: Sequence[Any]) -> Trial:
    """Tries the config's own patch and batch."""
    mesh = make_mesh(config.fsdp, devices)
    return _try(config, mesh, free_bytes(mesh.devices.flat[0]) or sys.maxsize)


def fastest(config: Config, devices: Sequence[Any]) -> Trial:
    """Tries batches twice as large each time, of smaller patches where no batch fits, and returns the fastest."""
    mesh = make_mesh(config.fsdp, devices)
    limit = free_bytes(mesh.devices.flat[0]) or sys.maxsize
    return max(_trials(config, mesh, limit, lambda _: None), key=lambda trial: trial.rate)


def _trials(config: Config, mesh: Mesh, limit: int, note: Callable[[str], None]) -> Iterator[Trial]:
    """Tries growing batches of the first patch that fits at all."""
    for patch in patches(config.data.patch):
        fitted = False
        for trial in _growing(put(config, patch=patch), mesh, limit, note):
            fitted = fitted or trial.seconds is not None
            yield trial
        if fitted:
            return


def patches(patch: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """Yields the patch, and smaller ones within the section, should it not fit."""
    z, y, x = patch
    yield patch
    for share in (0.75, 0.5, 0.25):
        lower, narrower = (max(int(side * share) // STRIDE, 1) * STRIDE for side in (y, x))
        if lower < y and narrower < x:
            yield z, lower, narrower


def savings(config: Config) -> Iterator[tuple[str, Config]]:
    """Yields what to lower to save memory, each with those before."""
    yield "the smallest batch", config
    model = dataclasses.replace(config.model, dtype="bfloat16")
    yield "and --config.model.dtype=bfloat16", dataclasses.replace(config, model=model)
    encoder = dataclasses.replace(model.encoder, remat=True)
    model = dataclasses.replace(model, remat=True, encoder=encoder)
    yield "and --config.model.remat=True, .encoder.remat=True", dataclasses.replace(config, model=model)
    if model.encoder.size == "none":
        return
    model = dataclasses.replace(model, encoder=dataclasses.replace(encoder, frozen=True))
    yield "and --config.model.encoder.frozen=True", dataclasses.replace(config, model=model)
    model = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, size="tiny"))
    yield "and --config.model.encoder.size=tiny, with its weights", dataclasses.replace(config, model=model)


def _growing(config: Config, mesh: Mesh, limit: int, note: Callable[[str], None]) -> Iterator[Trial]:
    """Tries batches twice as large each time, until one does not fit or is no faster."""
    batch, before = mesh.size * config.optim.accumulate, 0.0
    while True:
        note(f"  compiling and timing patches of {config.data.patch}, {batch} at once")
        trial = _try(put(config, batch=batch), mesh, limit)
        yield trial
        if trial.rate < WORTH * before or trial.seconds is None:
            return
        batch, before = 2 * batch, trial.rate


def _try(config: Config, mesh: Mesh, limit: int) -> Trial:
    step = if_it_fits(compile_step, config, mesh)
    if step is None:
        return Trial(config, 0, None)
    size = program_bytes(step)
    return Trial(config, size, None if size > limit else if_it_fits(_time, step, config, mesh))


def _time(step: Any, config: Config, mesh: Mesh) -> float:
    """Measures the seconds of a step."""
    state, frozen = new_state(config, mesh)
    shapes = _abstract_batch(config, mesh)
    batch = Batch(*(jax.device_put(jnp.ones(a.shape, a.dtype), a.sharding) for a in shapes))
    start = 0.0
    for number in range(STEPS + 1):
        state, metrics = step(state, frozen, batch)
        jax.block_until_ready((state, metrics))
        start = start if number else time.perf_counter()
    return (time.perf_counter() - start) / STEPS


def compile_step(config: Config, mesh: Mesh, options: dict[str, Any] | None = None) -> Any:
    """Compiles a training step for the mesh's devices, with the compiler's options."""
    state, frozen = abstract_state(config, mesh)
    step: Any = compile_train_step(config, mesh, state)
    return step.lower(state, frozen, _abstract_batch(config, mesh)).compile(compiler_options=options)


def _abstract_batch(config: Config, mesh: Mesh) -> Batch:
    spread = over_devices(mesh)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=spread), abstract_batch(config))


def put(config: Config, *, patch: tuple[int, int, int] | None = None, batch: int | None = None) -> Config:
    data = dataclasses.replace(config.data, patch=patch or config.data.patch)
    return dataclasses.replace(
        config, data=data, optim=dataclasses.replace(config.optim, batch=batch or config.optim.batch)
    )
