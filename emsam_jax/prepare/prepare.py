"""The command's work: look, assemble, write, and say what was found and what to type next."""

import dataclasses
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from emsam_jax.config import LabelRules, load_config
from emsam_jax.errors import UserError
from emsam_jax.prepare.advice import describe_truth, what_is_learned, what_to_paint
from emsam_jax.prepare.assemble import ROLES, Experiment, assemble, duration
from emsam_jax.prepare.choices import Basis
from emsam_jax.prepare.device import estimate_steps, find_device, find_weights, time_steps
from emsam_jax.prepare.look import Asked, Look, look_at
from emsam_jax.prepare.rendering import as_json, as_python
from emsam_jax.prepare.truth import Zero, describe_zero
from emsam_jax.storage import write_whole

_WIDTH = 88
_NO_LABELS = (
    "Without labels nothing can be trained. This config declares the volume, with its voxel size and grey range, and "
    "is no more than a start: paint a few sections and prepare again with them, or segment it by a model that was "
    "trained elsewhere:"
)


@dataclasses.dataclass(frozen=True)
class Request:
    volumes: tuple[tuple[str, ...], ...]  # RAW, LABELS and MASK of each
    out: Path
    voxel_size_zyx: tuple[int | float, ...] = ()
    rules: LabelRules = dataclasses.field(default_factory=LabelRules)
    zero: Zero | None = None
    hours: float = 2.0
    weights: str = ""
    trial: bool = True
    overwrite: bool = False
    called: str = "emsam prepare"  # as the command was typed


def prepare(request: Request, say: Callable[[str], None] = print) -> None:
    """Writes the config at `request.out`."""
    _check_out(request)
    ask = _ask if sys.stdin.isatty() and sys.stdout.isatty() else None
    asked = Asked(request.voxel_size_zyx, request.rules, request.zero, ask)
    looks = []
    for places in request.volumes:
        looks.append(look_at(places, asked))
        say(_page(looks[-1], request.zero is not None))
    _check_together(looks)
    device = find_device()
    basis = Basis(tuple(looks), device, find_weights(request.weights, device))
    name = request.out.stem
    time = time_steps if request.trial else estimate_steps
    if basis.truths and request.trial:
        say(f"Timing a training step on {device}.")
    found = assemble(
        name, basis, request.hours, lambda config: time(config, device), zero_given=request.zero is not None
    )
    text = (
        as_json(found.config)
        if request.out.suffix == ".json"
        else as_python(_header(request, basis, found), name, found.choices, found.used)
    )
    write_whole(request.out, text)
    if load_config(str(request.out)) != found.config:
        raise UserError(f"{request.out}: what was written reads as another config; report this, with the command.")
    say(_result(request, looks, found))


def _check_out(request: Request) -> None:
    out = request.out
    if out.suffix not in (".py", ".json"):
        raise UserError(f"--out={out}: expected the name of a config, FILE.py or FILE.json.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        found = "a folder" if out.is_dir() else f"no folder {out.parent}"
        raise UserError(f"--out={out}: expected the name of a config in a folder that exists, found {found}.")
    if out.exists() and not request.overwrite:
        raise UserError(f"--out={out}: this file exists; name another one, or replace it with --overwrite.")


def _check_together(looks: list[Look]) -> None:
    first, *others = looks
    for other in others:
        if other.size != first.size:
            raise UserError(
                f"{other.declared.raw}: expected voxels like those of {first.declared.raw}, {first.size} nm (z, y, x), "
                f"found {other.size} nm; one model sees one voxel size: prepare them apart, or choose levels that fit."
            )
        if (other.truth is None) != (first.truth is None):
            raise UserError(f"{other.declared.raw}: expected labels for all volumes or for none; prepare them apart.")
    names = [look.declared.name for look in looks]
    for number, look in enumerate(looks):
        if names.count(look.declared.name) > 1:
            looks[number] = dataclasses.replace(
                look, declared=dataclasses.replace(look.declared, name=f"{look.declared.name} {number + 1}")
            )


def _ask(evidence: str) -> str:
    return input(f"{evidence}\nEnter for that, or one of background, unlabelled, sections: ").strip()


def _page(look: Look, zero_given: bool) -> str:
    raw, (low, high) = look.specimen.raw, look.greys
    lines = [
        *look.told,
        f"{look.declared.name}: {' x '.join(map(str, raw.shape))} voxels of "
        f"{' x '.join(f'{side:g}' for side in look.size)} nm (z, y, x), {raw.dtype}, 98% of them {low:g} to {high:g}.",
    ]
    if look.truth is not None:
        lines += [describe_truth(look.truth), *what_is_learned(look.truth, look.size)]
        lines += [text for text in [describe_zero(look.truth, zero_given)] if text]
    lines += [f"Warning: {text}" for text in look.warnings]
    return "\n".join(lines)


def _header(request: Request, basis: Basis, found: Experiment) -> str:
    first = basis.looks[0]
    names = " and ".join(look.declared.name for look in basis.looks)
    size = " x ".join(f"{side:g}" for side in first.size)
    commands = "\n".join(f"    {command}" for command in _commands(request, basis.looks, found))
    if not basis.truths:
        about = _wrapped(f"{names}, {size} nm: raw without labels.")
        return f"{about}\n\n{_wrapped(_NO_LABELS)}\n\n{commands}\n\n{_written(request)}\n"
    model = "FGNet with SAM2's encoder" if basis.weights else "a 3D U-Net"
    kind = "isotropic" if basis.isotropic else "anisotropic"
    about = _wrapped(
        f"{names}, {size} nm, {kind}: {model}, for {duration(3600 * request.hours)} on {basis.device.name}."
    )
    told = [_wrapped(f"- {one.role}: {one.declared.name}, {one.holds}", "  ") for one in found.used]
    return "\n".join((about, "", commands, "", *told, "", _written(request), ""))


def _written(request: Request) -> str:
    return _wrapped(f"Written by `{request.called}`; fields and units: emsam_jax/config. Result: not measured.")


def _wrapped(text: str, indent: str = "") -> str:
    safe = text.replace("\\", "\\\\").replace('"""', "'''")
    return "\n".join(
        textwrap.wrap(safe, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )


def _commands(request: Request, looks: list[Look] | tuple[Look, ...], found: Experiment) -> list[str]:
    """Returns what to type next."""
    run, config = shlex.quote(f"runs/{request.out.stem}"), shlex.quote(str(request.out))
    size = f" --voxel_size={','.join(f'{side:g}' for side in request.voxel_size_zyx)}" if request.voxel_size_zyx else ""
    invert = " --invert" if looks[0].declared.intensity.invert else ""
    neurons = shlex.quote(f"runs/{request.out.stem}-neurons.zarr")
    raw = f"--raw={shlex.quote(looks[0].declared.raw)}{size}{invert}"
    if not found.config.data.train:
        return [f"emsam segment --ckpt=RUN {raw} --out=neurons.zarr"]
    judging = [f"emsam eval --ckpt={run}"] if found.config.data.test else []
    threshold = "" if found.config.data.validation else " --method=waterz --threshold=0.5"
    return [
        f"emsam train --config={config} --workdir={run}",
        *judging,
        f"emsam segment --ckpt={run} {raw} --out={neurons}{threshold}",
    ]


def _result(request: Request, looks: list[Look], found: Experiment) -> str:
    lines = [f"{one.role}: {one.declared.name}, {one.holds}" for one in found.used]
    for look, regions in zip(looks, found.regions, strict=False):
        assert look.truth is not None
        alone = len(looks) < len(ROLES)
        sections = look.specimen.raw.shape[0]
        painting = what_to_paint(look.truth, regions if alone else None, look.size, sections, choosing=alone)
        if painting:
            lines += [f"What to paint next in {look.declared.name}, the largest gain first:", *painting]
    if found.timing is not None:
        optim, (z, y, x) = found.config.optim, found.config.data.patch
        lines.append(
            f"Plan: patches of {z} x {y} x {x}, {optim.batch} a step; {found.timing}; {optim.steps} steps, "
            f"{duration(optim.steps * found.timing.seconds)} without reading and validation."
        )
    else:
        lines.append(_NO_LABELS)
    next_ones = (f"  {command}" for command in _commands(request, looks, found))
    return "\n".join((*lines, f"Written: {request.out}. Next:", *next_ones))
