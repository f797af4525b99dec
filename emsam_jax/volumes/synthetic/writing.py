"""Writes a synthetic volume, and draws it."""

import numpy as np

from emsam_jax.storage import SYNTHETIC, check_free
from emsam_jax.volumes.create import write_volume
from emsam_jax.volumes.synthetic.tissue import Synthetic

NAMES = ("raw.zarr", "labels.zarr")


def draw(volume: Synthetic, path: str) -> None:
    """Draws three sections, and below them the same with the labels over them."""
    from matplotlib import pyplot

    colours = np.random.default_rng(0).random((int(volume.labels.max()) + 1, 3))
    chosen = np.linspace(0, len(volume.raw) - 1, 3).round().astype(int)
    figure, axes = pyplot.subplots(2, 3, figsize=(15, 10.4), layout="constrained")
    for column, section in enumerate(chosen):
        grey = volume.raw[section] / 255
        axes[0, column].imshow(grey, cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(f"z {section}")
        axes[1, column].imshow(0.65 * grey[..., None] + 0.35 * colours[volume.labels[section]])
    for ax in axes.flat:
        ax.set_axis_off()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def write_synthetic(volume: Synthetic, folder: str) -> None:
    """Writes raw.zarr and labels.zarr; replaces earlier ones of its own."""
    check_place(folder)
    for name, values in zip(NAMES, (volume.raw, volume.labels), strict=True):
        write_volume(f"{folder}/{name}", values, volume.voxel_size_zyx, SYNTHETIC)


def check_place(folder: str) -> None:
    """Refuses a folder where others' files have these names."""
    for name in NAMES:
        check_free(f"{folder}/{name}", SYNTHETIC)
