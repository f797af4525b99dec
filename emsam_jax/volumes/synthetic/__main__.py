"""A seeded generator of EM-like volumes with exact labels, for the demo, the tests and the benchmarks.

    python -m emsam_jax.volumes.synthetic --picture=synthetic.png --voxel_size=40,8,8
    python -m emsam_jax.volumes.synthetic --out=data/train --shape=40,320,320 --seed=1

Neurites come from `neurites`; here they are stained, cut, blurred and given noise. What makes such a volume hard is
there as in life: membranes fade where they run oblique to the section, and mitochondria, vesicles and the reticulum
are as dark as membranes are.
"""

import math
import sys

from absl import app, flags

from emsam_jax.errors import UserError
from emsam_jax.volumes.flag_values import three
from emsam_jax.volumes.picture import check_picture
from emsam_jax.volumes.synthetic.tissue import Stain, synthetic_volume
from emsam_jax.volumes.synthetic.writing import draw, write_synthetic

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("picture", "", "Where to write a picture of it (PNG).")
    flags.DEFINE_string("out", "", "Folder for raw.zarr and labels.zarr; those that this wrote before are replaced.")
    flags.DEFINE_list("shape", ["4", "384", "384"], "z,y,x in voxels.")
    flags.DEFINE_list("voxel_size", ["40", "8", "8"], "z,y,x in nm.")
    flags.DEFINE_integer("seed", 0, "Which volume.")
    flags.DEFINE_float("defects", 0.0, "Share of the sections that are spoilt.")


def main(_: list[str]) -> None:
    if not FLAGS.picture and not FLAGS.out:
        sys.exit("synthetic: expected --out (a folder for the volume), --picture (a file), or both; found neither.")
    try:
        shape, voxel_size = three(FLAGS.shape, int), three(FLAGS.voxel_size, float)
        if not shape or min(shape) < 1:
            raise UserError(f"Expected --shape of three numbers of voxels, 1 or more, found {','.join(FLAGS.shape)!r}.")
        if not voxel_size or not all(0 < size < math.inf for size in voxel_size):
            raise UserError(f"Expected --voxel_size of three sizes above 0 nm, found {','.join(FLAGS.voxel_size)!r}.")
        if FLAGS.picture:
            check_picture(FLAGS.picture)
    except UserError as problem:
        sys.exit(f"synthetic: {problem}")
    volume = synthetic_volume(shape, FLAGS.seed, voxel_size, stain=Stain(defects=FLAGS.defects))
    if FLAGS.out:
        try:
            write_synthetic(volume, FLAGS.out)
        except UserError as error:
            sys.exit(f"synthetic: {error}")
    if FLAGS.picture:
        draw(volume, FLAGS.picture)


if __name__ == "__main__":
    define_flags()
    app.run(main)
