"""Chooses an experiment's settings from what was measured: each choice is a field, its value and the reason."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from emsam_jax.config import (
    NOTHING,
    SHORT_OFFSETS,
    Augmentation,
    Intensity,
    ModelConfig,
    Offset,
    multiples,
)
from emsam_jax.prepare.device import Device, Weights
from emsam_jax.prepare.look import Look
from emsam_jax.prepare.rendering import Call, Setting
from emsam_jax.prepare.truth import Truth
from emsam_jax.volumes import Voxel, is_isotropic

FEW_STEPS = 10_000  # below these, a training has use for few augmentations and a higher rate
_MOST_STEPS = 200_000
_VALIDATING = 0.85  # share of the hours that is left for steps: the rest reads, compiles and validates


@dataclasses.dataclass(frozen=True)
class Basis:
    """What the choices follow from."""

    looks: tuple[Look, ...]
    device: Device
    weights: Weights | None

    @property
    def isotropic(self) -> bool:
        return is_isotropic(self.looks[0].size)

    @property
    def truths(self) -> list[Truth]:
        return [look.truth for look in self.looks if look.truth is not None]

    @property
    def small(self) -> bool:
        """Returns whether the device is a CPU, which trains a small network in hours and no other."""
        return self.device.platform == "cpu"

    @property
    def thick(self) -> str:
        z, y, x = self.looks[0].size
        times = f"{z / math.sqrt(y * x):.3g}"
        return f"Voxels of {z:g} x {y:g} x {x:g} nm are {f'{times} times ' * (times != '1')}as thick as wide"


def model_choices(basis: Basis) -> list[Setting]:
    found = []
    if basis.weights is not None:
        found.append(_encoder(basis, basis.weights))
    else:
        found.append(Setting("model.encoder", {"size": "none"}, _without_encoder(basis)))
    found.append(
        Setting(
            "model.isotropic",
            basis.isotropic,
            f"{basis.thick}: z is {'pooled like y and x' if basis.isotropic else 'never pooled'}.",
        )
    )
    if basis.small:
        channels = (12, 24, 48, 96)
        reason = f"Four narrow levels, which {basis.device.name} can train in hours."
    else:
        channels = (32, 40, 48, 64, 80) if basis.weights else (28, 36, 48, 64, 80)
        reason = f"Five levels, as the field's networks have, for {basis.device.name}."
    found.append(Setting("model.channels", channels, reason))
    if basis.small and basis.isotropic:
        reason = "Fixed filters of raw leave less to learn in few steps: with them FIB-25 came to VOI 1.37 in 800."
        found.append(Setting("model.filters", True, reason))
    found.append(_offsets(basis))
    dtype = "float32" if basis.small else "bfloat16"
    found.append(Setting("model.dtype", dtype, f"{basis.device.name}: {_speed(dtype)}"))
    return found


def _speed(dtype: str) -> str:
    return "bfloat16 is no faster there." if dtype == "float32" else "half the memory, and its matrix units' type."


def _encoder(basis: Basis, weights: Weights) -> Setting:
    encoder = {"size": weights.size, "weights": weights.folder, "upsample": 2 if basis.isotropic else 1}
    reason = f"SAM2's weights lie in {weights.folder}; frozen first, to be fine-tuned from this run."
    return Setting("model.encoder", encoder, reason)


def _without_encoder(basis: Basis) -> str:
    if basis.small:
        return "The field's 3D U-Net: SAM2's encoder would take most of a CPU's hours (--weights=FOLDER uses it)."
    return "The field's 3D U-Net: no weights of SAM2 were found (--weights=FOLDER; convert/sam2_to_flax.py makes them)."


def _offsets(basis: Basis) -> Setting:
    if not basis.isotropic or not basis.truths:
        reason = "Affinities to neighbours; through thick sections, longer ones along z would join what has moved on."
        return Setting("model.offsets", SHORT_OFFSETS, reason, "SHORT_OFFSETS")
    profile = sum(truth.profile for truth in basis.truths) / len(basis.truths)
    near = min(max(round(profile / 5), 2), 5)
    long = *_long(near), *_long(3 * near)
    reason = (
        f"Half of the neurites' profiles are wider than {profile:.3g} voxels: affinities {near} and {3 * near} voxels "
        "away are learned too, to help those to neighbours, which alone decide the segmentation."
    )
    return Setting("model.offsets", (*SHORT_OFFSETS, *long), reason, Call("", ["*SHORT_OFFSETS", *map(repr, long)]))


def _long(distance: int) -> tuple[Offset, ...]:
    return (-distance, 0, 0), (0, -distance, 0), (0, 0, -distance)


def patches(basis: Basis, model: ModelConfig) -> list[tuple[Voxel, str]]:
    """Returns patches from the preferred one to smaller ones, with the reason."""
    if basis.weights is not None:
        side = 256 if basis.weights.size == "large" else 224
        patch = (48, side // 2, side // 2) if basis.isotropic else (16, side, side)
        reason = f"{patch[1]} pixels{', seen as ' + str(side) + ',' if basis.isotropic else ''} fill SAM2's windows"
    elif basis.isotropic:
        patch = (64, 64, 64) if basis.small else (80, 80, 80)
        reason = "A cube suits the 48 symmetries of isotropic voxels"
    else:
        patch = (16, 128, 128) if basis.small else (18, 160, 160)
        reason = "Many pixels and few sections, since these are thick"
    if basis.truths:
        trunk = max(truth.trunk for truth in basis.truths)
        reason += f"; half of the neurons' area lies in profiles wider than {trunk:.3g} voxels"
    sides = [patch]
    for share in (0.75, 0.5, 0.375, 0.25):
        z, y, x = (max(int(side * share) // n, 1) * n for side, n in zip(patch, multiples(model), strict=True))
        # Stacks of few sections are common.
        sides += [(z, y, x)] if basis.isotropic else [(z, *patch[1:]), (z, y, x)]
    return [(patch, reason), *((side, "As large as the labelled regions allow") for side in sides[1:])]


def data_choices(basis: Basis, patch: Voxel, reason: str) -> list[Setting]:
    found = [Setting("data.patch", patch, f"{_capital(reason)}.")]
    if basis.truths:
        found.append(_widening(basis))
    sparse = [truth for truth in basis.truths if truth.kind != "dense"]
    if sparse:
        found.append(_selection(sparse))
    return found


def _widening(basis: Basis) -> Setting:
    touching = min(truth.touching for truth in basis.truths)
    met = f"{touching:.0%} of the borders between neurons are of no width"
    if touching < 0.5:
        return Setting("data.widening", "none", f"Background lies between neurons already: {met}.")
    if basis.isotropic and basis.small:
        return Setting(
            "data.widening", "none", f"{met}; learned as they are, a classifier of FIB-25 was 0.1 bit better."
        )
    if basis.isotropic:
        return Setting("data.widening", "faces", f"{met}: they are widened by a voxel, along all axes.")
    return Setting("data.widening", "2d", f"{met}: they are widened by a voxel, within the section.")


def _selection(truths: Sequence[Truth]) -> Setting:
    sparsest = min(truths, key=lambda truth: truth.along[0].sum() / truth.box.voxels)
    share = sparsest.along[0].sum() / sparsest.box.voxels
    value: dict[str, Any] = {"by_label": True, "labelled": 0.001}
    if any(truth.kind == "strokes" for truth in truths):
        value["largest"] = 1.0
    reason = f"Neurons are painted in {share:.2g} of the voxels around them: patches are drawn around labelled voxels."
    return Setting("data.selection", value, reason)


def training_choices(basis: Basis, steps: int, batch: int, timing: str) -> list[Setting]:
    few = steps < FEW_STEPS
    found = [_augmentation(basis, steps, few)]
    if len(_offsets(basis).value) > len(SHORT_OFFSETS):
        reason = "Long affinities count a third of those to neighbours; Dice keeps thin borders from drowning."
        loss = {"dice": 0.5, "max_weight": 5.0, "long_weight": 1 / 3}
        code = Call("LossConfig", ["dice=0.5", "max_weight=5.0", "long_weight=1 / 3"])
        found.append(Setting("loss", loss, reason, code))
    optim = {
        "steps": steps,
        "batch": batch,
        "peak_lr": 2e-3 if few else 1e-3,
        # As in configs/fib25.py, which was measured: of 800 steps 50, and a mean over 100.
        "warmup": min(max(steps // 16, 1), 1000),
        "ema": min(max(round(1 - 8 / steps, 4), 0.9), 0.999),
    }
    found.append(Setting("optim", optim, timing))
    every = max(steps // (4 if few else 20), min(steps, 100))
    keep = {"every": max(min(steps // 20, 1000), min(steps, 20))}
    found.append(Setting("checkpoint", keep, "Twenty times in all, or every thousand steps."))
    validation = {"every": every, "fragments": "3d" if basis.isotropic else "2d"}
    whether = "isotropic: watershed in 3D" if basis.isotropic else "thick: watershed in each section"
    found.append(Setting("validation", validation, f"Voxels are {whether}."))
    found.append(Setting("log", {"every": max(steps // 100, 1), "pictures_every": every}, ""))
    return found


def _augmentation(basis: Basis, steps: int, few: bool) -> Setting:
    field, count = "data.augmentation", 48 if basis.isotropic else 16
    if few:
        greys = {"grey": 0.5, "volume_contrast": 0.2, "volume_brightness": 0.1, "volume_gamma": 0.2}
        little = {"symmetries": True, **greys, "noise": 0.3, "noise_sigma": 0.03}
        value = dataclasses.replace(NOTHING, **little).without_section_defects()
        items = ["NOTHING", *(f"{name}={each!r}" for name, each in little.items())]
        reason = f"{steps} steps have use for the {count} symmetries, greys and noise, and for nothing else."
        return Setting(field, value, reason, Call("dataclasses.replace", items, ".without_section_defects()"))
    if basis.isotropic:
        reason = f"The {count} symmetries and all else but section defects: the block was imaged as a whole."
        value = Augmentation().without_section_defects()
        return Setting(field, value, reason, "Augmentation().without_section_defects()")
    reason = f"The {count} symmetries, and defects of sections, which are cut and may be displaced, blurred or lost."
    return Setting(field, Augmentation(), reason, "Augmentation()")


def predict_choice(basis: Basis, largest: Voxel) -> Setting:
    usual = (128, 256, 256) if basis.isotropic else (64, 512, 512)
    z, y, x = (min(side, -(-there // 32) * 32) for side, there in zip(usual, largest, strict=True))
    stride = (0.8,) * 3 if basis.isotropic else (0.5, 0.67, 0.67)
    value: dict[str, Any] = {"stride": stride} if basis.small else {}
    reason = "Windows overlap little on a CPU; " if basis.small else ""
    return Setting("predict", {**value, "block": (z, y, x)}, _capital(f"{reason}blocks hold what is reported on."))


def steps_for(hours: float, seconds: float) -> int:
    """Returns the steps, in two digits, that the hours allow."""
    steps = _VALIDATING * hours * 3600 / seconds
    return int(float(f"{min(max(steps, 10), _MOST_STEPS):.1e}"))


def tell_intensity(look: Look, intensity: Intensity) -> str:
    low, high = look.greys
    how = "by the training region's percentiles 1 and 99" if intensity.percentiles else "over the range of their type"
    return f"98% of the grey values are {low:g} to {high:g}: they become 0 to 1 {how}" + (
        ", inverted, since membranes are bright." if intensity.invert else "."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
