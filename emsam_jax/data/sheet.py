"""Draws a sheet of pictures: one patch under each augmentation, and its affinities.

    python -m emsam_jax.data.sheet --out=sheet.png
    python -m emsam_jax.data.sheet --out=sheet.png --raw=em.zarr --labels=labels.zarr --seed=3

A row for each augmentation alone, and one for all of them with their usual chances.
"""

import dataclasses

import jax
import numpy as np
import tensorstore as ts

from emsam_jax.command_line import FLAGS, flags, group, required, run
from emsam_jax.config import NOTHING, Augmentation, DeclaredVolume
from emsam_jax.data.affinities import Target
from emsam_jax.data.augment import Batch, make_augment
from emsam_jax.data.loader import Share, read_samples
from emsam_jax.data.patches import PatchSource
from emsam_jax.errors import UserError
from emsam_jax.volumes import Specimen, Volume, check_picture, open_declared
from emsam_jax.volumes.synthetic import synthetic_volume

SECTIONS = 6
_DISPLACEMENTS = ("slip", "jump")
_CHANCES = (
    *("rotate", "scale", "elastic", *_DISPLACEMENTS, "grey"),
    *("missing_section", "missing_part", "blurred_section", "noise", "cut_out"),
)


def define_flags() -> None:
    with group("Input"):
        flags.DEFINE_string("raw", "", "Raw volume: `PATH` or URL; by default a synthetic one.")
        flags.DEFINE_string("labels", "", "True labels: `PATH` or URL.")
        flags.DEFINE_integer("side", 160, "Patch size in y and x, voxels.")
        flags.DEFINE_integer("seed", 0, "Seed of the patch and of each augmentation.")
    with group("Output"):
        flags.DEFINE_string("out", None, "Picture `FILE` to draw (PNG).")


def rows(source: Specimen, side: int, seed: int) -> dict[str, Batch]:
    """Computes one patch by itself, under each augmentation alone, and under all with their usual probabilities."""
    kinds = {"nothing": NOTHING, "symmetries": dataclasses.replace(NOTHING, symmetries=True)}
    kinds |= {name: dataclasses.replace(NOTHING, **{name: 1.0}) for name in _CHANCES}
    kinds["all, as they come"] = Augmentation()
    target = Target(patch=(SECTIONS, side, side))
    made = {}
    for name, augmentation in kinds.items():
        samples = next(read_samples(Share(PatchSource([source], target, augmentation, seed), 1, 0, 1)))
        made[name] = jax.device_get(make_augment(target, augmentation, seed)(samples))
    return made


def draw(made: dict[str, Batch], path: str) -> None:
    """Draws a row for each: the sections, and the first section's affinities along y and x."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(made), SECTIONS + 1, figsize=(1.6 * (SECTIONS + 1), 1.65 * len(made)), layout="constrained"
    )
    for row, (name, batch) in zip(axes, made.items(), strict=True):
        for ax, section in zip(row, batch.raw[0, ..., 0], strict=False):
            ax.imshow(section, cmap="gray", vmin=0, vmax=1)
        affinities = np.where(batch.valid, batch.affinities, 0.5)[0, 0, ..., 1:].mean(-1)
        row[-1].imshow(affinities, cmap="gray", vmin=0, vmax=1)
        row[0].set_title(name, fontsize=8, loc="left", pad=2)
        for ax in row:
            ax.set_axis_off()
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def main(_: list[str]) -> None:
    out = required("out")
    if FLAGS.side < 1:
        raise UserError(f"Expected --side of 1 voxel or more, found {FLAGS.side}.")
    if FLAGS.seed < 0:
        raise UserError(f"Expected --seed of 0 or more, found {FLAGS.seed}.")
    check_picture(out)
    if FLAGS.raw and not FLAGS.labels:
        raise UserError(f"{FLAGS.raw}: expected labels of the raw; give --labels.")
    if FLAGS.raw:
        specimen = open_declared(DeclaredVolume(raw=FLAGS.raw, labels=FLAGS.labels))
    else:
        specimen = synthetic_specimen((2 * SECTIONS, 3 * FLAGS.side, 3 * FLAGS.side), FLAGS.seed)
    draw(rows(specimen, FLAGS.side, FLAGS.seed), out)


def synthetic_specimen(shape: tuple[int, int, int], seed: int) -> Specimen:
    """Makes a synthetic volume in memory."""
    volume = synthetic_volume(shape, seed)

    def in_memory(values: np.ndarray) -> Volume:
        return Volume(ts.array(values), "synthetic", voxel_size_zyx=volume.voxel_size_zyx)

    return Specimen(in_memory(volume.raw), in_memory(volume.labels))


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
