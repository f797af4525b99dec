"""Formats the page that a run begins with: what is trained, on what, and from where."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from emsam_jax.config import Config, describe_encoder
from emsam_jax.inference import Measured
from emsam_jax.model import ENCODER, warn_of_padding
from emsam_jax.training.optimizer import optim_of
from emsam_jax.training.sharding import DATA, FSDP
from emsam_jax.training.stream import Stream


def start_page(
    config: Config,
    workdir: Path,
    *,
    mesh: Mesh,
    stream: Stream,
    params: Mapping[str, Any],
    frozen: Mapping[str, Any],
    origin: str,
    measured: Measured,
    overlaps: Sequence[str] = (),
) -> str:
    model, optim, data = config.model, config.optim, config.data
    encoder = {name: value for name, value in {**params, **frozen}.items() if name.startswith(ENCODER)}
    warning = warn_of_padding(model, data.patch)
    kinds = ", ".join(sorted({device.device_kind for device in mesh.devices.flat}))
    z, y, x = data.patch
    lines = [
        f"{config.name or 'training'} -> {workdir}",
        f"  encoder  {describe_encoder(model.encoder, config.init_from)}",
        *([f"  warning  {warning}"] if warning else []),
        f"  model    {_count(params)} parameters are trained, {_count(frozen)} frozen"
        f" ({_count(encoder)} in the encoder); {model.dtype}",
        f"  devices  {mesh.size} x {kinds}: {DATA} {mesh.shape[DATA]} x {FSDP} {mesh.shape[FSDP]}",
        f"  batch    {optim.batch} patches of {z} x {y} x {x}, {optim.batch // mesh.size} on each device"
        + (f", in {optim.accumulate} parts" if optim.accumulate > 1 else ""),
        *(f"  data     {line}" for line in stream.describe()),
        *(f"  warning  {text}, as --allow_overlap lets it." for text in overlaps),
        f"  greys    {_tell_ranges(config, measured)}",
        f"  balance  {config.loss.balance}: {' '.join(f'{share:.1%}' for share in measured.positives)} of the "
        f"affinities are 1; {' '.join(f'{odds:+.2f}' for odds in measured.prior)} is taken from their log odds",
        f"  steps    {optim.steps} ({optim.steps * optim.batch} patches), "
        f"rate {optim_of(config).peak_lr:g} at most; {origin}",
        "The first step is compiled; that takes a while.",
    ]
    return "\n".join(lines)


def _tell_ranges(config: Config, measured: Measured) -> str:
    ranges = " and ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in measured.ranges))
    if not any(volume.intensity.percentiles for volume in config.data.train):
        return f"{ranges} become 0 to 1"
    if len(set(measured.ranges)) == 1:
        return f"{ranges} become 0 to 1, by the training region's percentiles, in other volumes too"
    return f"{ranges} become 0 to 1, each volume by its training region's percentiles, and new volumes by their own"


def _count(params: Mapping[str, Any]) -> str:
    number = sum(math.prod(value.shape) for value in params.values())
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number}"
