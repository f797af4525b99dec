"""From looks at volumes to an experiment: patch and regions together, then the training that the hours allow."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from emsam_jax.config import Config, check_model, check_patch, check_weights, from_dict, to_dict
from emsam_jax.errors import UserError
from emsam_jax.prepare.choices import (
    Basis,
    data_choices,
    model_choices,
    patches,
    predict_choice,
    steps_for,
    tell_intensity,
    training_choices,
)
from emsam_jax.prepare.device import Timing
from emsam_jax.prepare.look import Look
from emsam_jax.prepare.regions import Regions, split_regions, whole_region
from emsam_jax.prepare.rendering import Portion, Setting, Source, config_of
from emsam_jax.prepare.truth import describe_zero
from emsam_jax.volumes import Box, Voxel, open_declared, part_of, refuse_overlap

Role = Literal["training", "validation", "test"]
ROLES: dict[str, Role] = {"train": "training", "validation": "validation", "test": "test"}


class Experiment(NamedTuple):
    config: Config
    choices: tuple[Setting, ...]
    used: tuple[Portion, ...]
    regions: tuple[Regions | None, ...]  # of each volume
    timing: Timing | None


def assemble(
    name: str, basis: Basis, hours: float, time: Callable[[Config], Timing], *, zero_given: bool = False
) -> Experiment:
    """Chooses everything; `time` measures or estimates a training step. Without labels, nothing but the volume."""
    sources = [_source(look, number, len(basis.looks), zero_given) for number, look in enumerate(basis.looks)]
    if not basis.truths:
        used = [
            _used(source, "test", look, look.specimen.region) for source, look in zip(sources, basis.looks, strict=True)
        ]
        return _checked(Experiment(config_of(name, (), used), (), tuple(used), (), None))
    model = model_choices(basis)
    patch, reason, regions = _split(basis, config_of(name, model, ()))
    used = [
        _used(source, role, look, box, split)
        for source, look, split in zip(sources, basis.looks, regions, strict=True)
        for role, box in split.parts.items()
    ]
    used.sort(key=lambda one: list(ROLES).index(one.role))
    choices = [*model, *data_choices(basis, patch, reason)]
    timing = time(config_of(name, [*choices, Setting("optim", {"batch": 1}, "")], used))
    if timing.patch != patch:
        choices = [*model, *data_choices(basis, timing.patch, "The largest that fits the memory")]
    steps = steps_for(hours, timing.seconds)
    taken = f"{timing}; {steps} steps take {duration(steps * timing.seconds)} of {duration(3600 * hours)}."
    choices += training_choices(basis, steps, timing.batch, f"{basis.device.name}: {taken}")
    reported = [one.box for one in used if one.role != "train"] or [one.box for one in used]
    z, y, x = (max(box.shape[axis] for box in reported) for axis in range(3))
    choices.append(predict_choice(basis, (z, y, x)))
    if not any(one.role == "validation" for one in used):
        choices = [_without_validation(choice) for choice in choices]
    found = Experiment(config_of(name, choices, used), tuple(choices), tuple(used), tuple(regions), timing)
    return _checked(found)


def _split(basis: Basis, config: Config) -> tuple[Voxel, str, list[Regions]]:
    """Returns the largest patch that leaves regions for training, validation and test, or else for two of them.

    A smaller patch comes before a guard of less than half of what it should be.
    """
    best: tuple[tuple[int, bool], Voxel, str, list[Regions]] | None = None
    for patch, reason in patches(basis, config.model):
        found = _by_volume(basis.looks, patch) if len(basis.truths) >= len(ROLES) else _by_region(basis.looks, patch)
        if found is None:
            continue
        guarded = all(2 * regions.guard >= regions.wanted for regions in found if regions.guard)
        rank = len({role for regions in found for role in regions.parts}), guarded
        if best is None or rank > best[0]:
            best = rank, patch, reason, found
    if best is None:
        smallest = patches(basis, config.model)[-1][0]
        raise UserError(
            f"{basis.looks[0].declared.labels}: expected labels around which a patch of {smallest} voxels (z, y, x) "
            f"fits, found them within {basis.truths[0].box} of the raw's {basis.looks[0].specimen.raw.box}."
        )
    return best[1:]


def _by_region(looks: Sequence[Look], patch: Voxel) -> list[Regions] | None:
    found = [split_regions(look.truth, patch, look.limits) for look in looks if look.truth is not None]
    together = [regions for regions in found if regions is not None]
    return together if len(together) == len(looks) else None


def _by_volume(looks: Sequence[Look], patch: Voxel) -> list[Regions] | None:
    """The last volume is reported on, the one before it chosen on, all others are trained on."""
    found = []
    for number, look in enumerate(looks):
        role = {len(looks) - 1: "test", len(looks) - 2: "validation"}.get(number, "train")
        regions = whole_region(look.truth, patch, look.limits, role) if look.truth is not None else None
        if regions is None:
            return None
        found.append(regions)
    return found


def _source(look: Look, number: int, count: int, zero_given: bool) -> Source:
    truth = look.truth
    reasons = {"intensity": tell_intensity(look, look.declared.intensity)}
    if truth is not None and (told := describe_zero(truth, zero_given)):
        reasons["rules"] = told
    if truth is not None and look.sections:
        reasons["mask"] = f"Only these of {truth.box.shape[0]} sections [start, stop) are painted."
    z, y, x = look.specimen.raw.shape[-3:]
    constant = "VOLUME" if count == 1 else f"VOLUME_{number + 1}"
    return Source(constant, look.declared, reasons, look.sections, (z, y, x))


def _used(source: Source, role: str, look: Look, box: Box, split: Regions | None = None) -> Portion:
    shown = f"{box.voxels / 1e6:.3g} million voxels"
    if look.truth is None:
        return Portion(source, role, box, f"{shown}, without labels.")
    painted = [z for z in look.truth.painted if box.start[0] <= z < box.stop[0]]
    purpose = {"train": "to learn from", "validation": "to choose checkpoint and threshold on", "test": "to report on"}
    holds = f"{shown} with labels in {len(painted)} of {box.shape[0]} sections, {purpose[role]}"
    if split is None or split.guard == 0 or role == "train":
        return Portion(source, role, box, f"{holds}.")
    why = "half a patch" if split.guard >= split.wanted else f"half a patch would be {split.wanted}, for few labels"
    return Portion(source, role, box, f"{holds}; {split.guard} voxels along {'zyx'[split.axis]} before it: {why}.")


def _without_validation(choice: Setting) -> Setting:
    if choice.field != "validation":
        return choice
    value = {**choice.value, "every": 0}
    return Setting("validation", value, f"{choice.reason} The labels are too few to choose on.")


def _checked(experiment: Experiment) -> Experiment:
    """Refuses what train.py would refuse."""
    config = from_dict(to_dict(experiment.config))
    check_model(config.model)
    check_weights(config.model.encoder)
    if config.data.train:
        check_patch(config.model, config.data.patch, "config.data.patch")
    refuse_overlap([part_of(ROLES[one.role], open_declared(one.declared)) for one in experiment.used])
    return experiment


def duration(seconds: float) -> str:
    number, unit = (f"{seconds / 3600:.2g}", "hour") if seconds >= 3600 else (f"{math.ceil(seconds / 60)}", "minute")
    return f"{number} {unit}{'s' * (number != '1')}"
