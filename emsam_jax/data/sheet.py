"""A sheet of pictures: one patch, and what each augmentation makes of it.

python -m emsam_jax.data.sheet --out=sheet.png [--raw=RAW --labels=LABELS]
"""

import dataclasses
import sys

import jax
import numpy as np
import tensorstore as ts
from absl import app, flags

from emsam_jax.config import NOTHING, Augmentation, DeclaredVolume
from emsam_jax.data.affinities import Target
from emsam_jax.data.augment import Batch, make_augment
from emsam_jax.data.loader import Share, read_samples
from emsam_jax.data.patches import PatchSource
from emsam_jax.errors import UserError
from emsam_jax.volumes import Specimen, Volume, check_picture, open_declared
from emsam_jax.volumes.synthetic import synthetic_volume

FLAGS = flags.FLAGS
SECTIONS = 6
_DISPLACEMENTS = ("slip", "jump")
_CHANCES = (
    *("rotate", "scale", "elastic", *_DISPLACEMENTS, "grey"),
    *("missing_section", "missing_part", "blurred_section", "noise", "cut_out"),
)


def define_flags() -> None:
    flags.DEFINE_string("out", None, "Where to write the sheet (PNG).", required=True)
    flags.DEFINE_string("raw", "", "A volume; a synthetic one if left out.")
    flags.DEFINE_string("labels", "", "Its labels.")
    flags.DEFINE_integer("side", 160, "Of the patch, voxels.")
    flags.DEFINE_integer("seed", 0, "Which patch, and which of each augmentation.")


def rows(source: Specimen, side: int, seed: int) -> dict[str, Batch]:
    """One patch by itself, under each augmentation alone, and under all of them with their usual chances."""
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
    """A row for each: the sections, and the first one's affinities along y and x."""
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
    try:
        if FLAGS.side < 1:
            raise UserError(f"Expected --side of 1 voxel or more, found {FLAGS.side}.")
        check_picture(FLAGS.out)
        if FLAGS.raw:
            specimen = open_declared(DeclaredVolume(raw=FLAGS.raw, labels=FLAGS.labels))
        else:
            specimen = synthetic_specimen((2 * SECTIONS, 3 * FLAGS.side, 3 * FLAGS.side), FLAGS.seed)
        draw(rows(specimen, FLAGS.side, FLAGS.seed), FLAGS.out)
    except UserError as problem:
        sys.exit(f"sheet: {problem}")


def synthetic_specimen(shape: tuple[int, int, int], seed: int) -> Specimen:
    """A synthetic volume, held in memory."""
    volume = synthetic_volume(shape, seed)

    def in_memory(values: np.ndarray) -> Volume:
        return Volume(ts.array(values), "synthetic", voxel_size_zyx=volume.voxel_size_zyx)

    return Specimen(in_memory(volume.raw), in_memory(volume.labels))


if __name__ == "__main__":
    define_flags()
    app.run(main)
