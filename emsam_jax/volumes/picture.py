"""Draws three sections with the labels over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from emsam_jax.errors import UserError
from emsam_jax.volumes.box import Box
from emsam_jax.volumes.specimen import Specimen

_SIDE = 768  # voxels shown of a section, from its middle


def check_picture(path: str | Path) -> None:
    """Refuses a place where no picture can be written, before hours of reading."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, for those who draw

    path = Path(path)
    known = sorted(FigureCanvasAgg.filetypes)
    if path.suffix.lower().removeprefix(".") not in known:
        raise UserError(f"{path}: expected a picture's name that ends in one of {', '.join(known)} (--out).")
    if path.is_dir() or not path.absolute().parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder {path.parent}"
        raise UserError(f"{path}: expected the name of a picture in a folder that exists (--out), found {found}.")


def save_picture(path: str | Path, specimen: Specimen, sections: Sequence[int]) -> None:
    """Saves three sections of the raw, and below them the same with the labels over it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    region = specimen.labelled_region
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    for column, z in enumerate(sections):
        box = _section(region, z)
        grey = specimen.read_raw(box)[0].astype(np.float32)
        low, high = np.percentile(grey, [1, 99])
        grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
        ids, _ = specimen.read_labels(box)
        axes[0, column].imshow(grey, cmap="gray", vmin=0, vmax=1)
        axes[1, column].imshow(overlay(grey, ids[0]))
        axes[0, column].set_title(f"z {box.start[0]}, y from {box.start[1]}, x from {box.start[2]}")
    for axis in axes.flat:
        axis.set_axis_off()
    try:
        figure.savefig(path, dpi=100)
    except OSError as problem:
        raise UserError(f"{path}: the picture cannot be written: {problem.strerror}.") from None


def overlay(grey: Float[np.ndarray, "y x"], ids: Integer[np.ndarray, "y x"]) -> Float[np.ndarray, "y x 3"]:
    """Returns a colour for each id, by a hash so that it is the same in every section; none for 0."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    channels = [(mixed >> np.uint64(shift) & np.uint64(255)).astype(np.float32) / 255 for shift in (56, 48, 40)]
    colour = np.stack(channels, -1)
    share = np.where(ids[..., None] > 0, 0.4, 0.0)
    return ((1 - share) * grey[..., None] + share * colour).astype(np.float32)


def _section(region: Box, z: int) -> Box:
    y, x = (start + max(0, side - _SIDE) // 2 for start, side in zip(region.start[1:], region.shape[1:], strict=True))
    return Box((z, y, x), (z + 1, y + _SIDE, x + _SIDE)).within(region)
