"""Bounds of a config's numbers: a limit for each numeric field, by its path, with [] for any item of a list."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple


class Limit(NamedTuple):
    low: int | float = -math.inf
    high: int | float = math.inf
    open_low: bool = False  # `low` itself is no value
    open_high: bool = False

    def holds(self, value: int | float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below  # false for NaN

    def __str__(self) -> str:
        low = "" if math.isinf(self.low) else f"{'above' if self.open_low else 'from'} {self.low:g}"
        high = "" if math.isinf(self.high) else f"{'below' if self.open_high else 'up to'} {self.high:g}"
        return "a number " + (" and ".join(text for text in (low, high) if text) or "that is finite")


ANY = Limit(-math.inf, math.inf, open_low=True, open_high=True)
POSITIVE = Limit(0, math.inf, open_low=True, open_high=True)
NOT_NEGATIVE = Limit(0, math.inf, open_high=True)
COUNT = Limit(1, 2**31 - 1)
COUNT_OR_NONE = Limit(0, 2**31 - 1)
VOXELS = Limit(1, 2**20)
SHARE = Limit(0, 1)
PART = Limit(0, 1, open_low=True)
LEVEL = Limit(0, 64)
ID = Limit(-(2**63), 2**64 - 1)
_VOLUME = {
    "raw_level": LEVEL,
    "labels_level": LEVEL,
    "mask_level": LEVEL,
    "raw_voxel_size_zyx[]": POSITIVE,
    "labels_voxel_size_zyx[]": POSITIVE,
    "mask_voxel_size_zyx[]": POSITIVE,
    "raw_offset_zyx[]": ANY,
    "labels_offset_zyx[]": ANY,
    "mask_offset_zyx[]": ANY,
    "intensity.low": ANY,
    "intensity.high": ANY,
    "rules.background[]": ID,
    "rules.unlabelled[]": ID,
}
_AUGMENTATION = {
    **dict.fromkeys(("rotate", "scale", "elastic", "slip", "jump", "grey", "missing_section", "missing_part"), SHARE),
    **dict.fromkeys(("blurred_section", "noise", "cut_out", "cut_out_share"), SHARE),
    "rotate_degrees": Limit(0, 180),
    "scale_by": Limit(1, 4),
    "elastic_voxels": Limit(0, 1000),
    "elastic_spacing": Limit(1, 10_000),
    "misalign_voxels": Limit(0, 1000),
    **dict.fromkeys(("volume_contrast", "volume_brightness", "section_contrast", "section_brightness"), SHARE),
    **dict.fromkeys(("volume_gamma", "section_gamma", "noise_sigma"), Limit(0, 10)),
    "blur_voxels": Limit(0, 100),
}
LIMITS = {
    "seed": Limit(0, 2**32 - 1),
    "fsdp": COUNT,
    "model.encoder.upsample": Limit(1, 2),
    "model.encoder.drop_path": Limit(0, 1, open_high=True),
    "model.projected": COUNT,
    "model.channels[]": COUNT,
    "model.norm_groups": COUNT,
    "model.offsets[][]": Limit(-(2**20), 2**20),
    **{f"data.{part}[].{name}": limit for part in ("train", "validation", "test") for name, limit in _VOLUME.items()},
    "data.weights[]": POSITIVE,
    "data.patch[]": VOXELS,
    "data.radius": Limit(0, 1000),
    **{f"data.augmentation.{name}": limit for name, limit in _AUGMENTATION.items()},
    "data.selection.labelled": SHARE,
    "data.selection.largest": PART,
    "data.threads": COUNT,
    "data.prefetch": COUNT_OR_NONE,
    "loss.coarse": POSITIVE,
    "loss.dice": NOT_NEGATIVE,
    "loss.max_weight": Limit(1, math.inf, open_high=True),
    "loss.long_weight": NOT_NEGATIVE,
    "optim.steps": COUNT,
    "optim.batch": COUNT,
    "optim.accumulate": COUNT,
    "optim.peak_lr": POSITIVE,
    "optim.trained_lr": Limit(0, 1, open_low=True),
    "optim.encoder_lr": NOT_NEGATIVE,
    "optim.layer_decay": PART,
    "optim.warmup": COUNT_OR_NONE,
    "optim.final_lr": SHARE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.clip": POSITIVE,
    "optim.ema": Limit(0, 1, open_high=True),
    "optim.bad_steps": COUNT,
    "checkpoint.every": COUNT,
    "checkpoint.keep": COUNT,
    "validation.every": COUNT_OR_NONE,
    "log.every": COUNT,
    "log.pictures_every": COUNT,
    "predict.window[]": VOXELS,
    "predict.stride[]": PART,
    "predict.symmetries": Limit(1, 48),
    "predict.block[]": VOXELS,
    "predict.batch": COUNT_OR_NONE,
}


def numbers_of(config: Any, path: str = "") -> Iterator[tuple[str, int | float]]:
    """Yields each number of a config with its path, such as data.train[0].raw_level; booleans are left out."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from numbers_of(getattr(config, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(config, tuple):
        for place, item in enumerate(config):
            yield from numbers_of(item, f"{path}[{place}]")
    elif isinstance(config, int | float) and not isinstance(config, bool):
        yield path, config
