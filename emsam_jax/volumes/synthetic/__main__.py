"""Makes EM-like volumes with exact labels from a seed, for the demo, the tests and the benchmarks.

    python -m emsam_jax.volumes.synthetic --picture=synthetic.png --voxel_size=40,8,8
    python -m emsam_jax.volumes.synthetic --out=data/train --shape=40,320,320 --seed=1
    python -m emsam_jax.volumes.synthetic --ion_beam --out=data/fib --voxel_size=10,10,10
    python -m emsam_jax.volumes.synthetic --measure=em.zarr --roi=0:125,:,:

Neurites are grown, stained, cut into sections, blurred and given noise. What makes such a volume hard is there as in
life: membranes fade where they run oblique to the section, and mitochondria, vesicles and the reticulum are as dark as
membranes are.
"""

import json
import math

from emsam_jax.command_line import FLAGS, define_zyx, flags, group, run
from emsam_jax.errors import UserError
from emsam_jax.storage import check_memory
from emsam_jax.volumes import is_isotropic, open_volume, parse_box
from emsam_jax.volumes.picture import check_picture
from emsam_jax.volumes.synthetic.ion_beam import ion_beam_volume
from emsam_jax.volumes.synthetic.likeness import measure_raw
from emsam_jax.volumes.synthetic.tissue import Stain, synthetic_volume
from emsam_jax.volumes.synthetic.writing import draw, write_synthetic

_BYTES_A_VOXEL, _BYTES_OF_ION_BEAM = 40, 120  # of fields and noise in float32


def define_flags() -> None:
    with group("Tissue"):
        define_zyx("shape", int, "Size of the volume, `z,y,x` in voxels.", (4, 384, 384))
        define_zyx("voxel_size", float, "Voxel size, `z,y,x` in nm.", (40, 8, 8))
        flags.DEFINE_integer("seed", 0, "Seed; each gives another volume.")
        flags.DEFINE_float("defects", 0.0, "Share of sections with a defect, 0 to 1.")
        flags.DEFINE_bool(
            "ion_beam", False, "Isotropic tissue as a focused ion beam shows it, of another appearance for each seed."
        )
    with group("Output (one or more)"):
        flags.DEFINE_string(
            "out", "", "`FOLDER` for raw.zarr and labels.zarr; earlier ones of this command are replaced."
        )
        flags.DEFINE_string("picture", "", "Picture `FILE` of three sections and their labels.")
    with group("Real tissue to compare with"):
        flags.DEFINE_string("measure", "", "Raw `PATH` or URL whose noise, greys and sizes to print, and nothing else.")
        flags.DEFINE_string("roi", "", "Region of it, `z0:z1,y0:y1,x0:x1` in voxels.")


def main(_: list[str]) -> None:
    if FLAGS.measure:
        real = open_volume(FLAGS.measure)
        print(json.dumps(measure_raw(real[parse_box(FLAGS.roi, real.box).slices]), indent=2))
        return
    _check()
    if FLAGS.ion_beam:
        volume = ion_beam_volume(FLAGS.shape, FLAGS.seed, FLAGS.voxel_size)
    else:
        volume = synthetic_volume(FLAGS.shape, FLAGS.seed, FLAGS.voxel_size, stain=Stain(defects=FLAGS.defects))
    if FLAGS.out:
        write_synthetic(volume, FLAGS.out)
    if FLAGS.picture:
        draw(volume, FLAGS.picture)


def _check() -> None:
    if not FLAGS.picture and not FLAGS.out:
        raise UserError("Expected --out (a folder for the volume), --picture (a file), or both; found neither.")
    if not FLAGS.shape or min(FLAGS.shape) < 1:
        raise UserError(f"Expected --shape of three numbers of voxels, 1 or more, found {FLAGS.shape}.")
    if not FLAGS.voxel_size or not all(0.1 <= size <= 1000 for size in FLAGS.voxel_size):
        raise UserError(f"Expected --voxel_size of three sizes from 0.1 to 1000 nm, found {FLAGS.voxel_size}.")
    if FLAGS.seed < 0:
        raise UserError(f"Expected --seed of 0 or more, found {FLAGS.seed}.")
    if not 0 <= FLAGS.defects <= 1:
        raise UserError(f"Expected --defects of a share from 0 to 1, found {FLAGS.defects}.")
    if FLAGS.ion_beam and not is_isotropic(FLAGS.voxel_size):
        raise UserError(f"Expected --voxel_size of cubes with --ion_beam, such as 10,10,10; found {FLAGS.voxel_size}.")
    if FLAGS.ion_beam and FLAGS.defects:
        raise UserError(f"Expected no --defects with --ion_beam, which cuts no sections; found {FLAGS.defects}.")
    check_memory(
        (_BYTES_OF_ION_BEAM if FLAGS.ion_beam else _BYTES_A_VOXEL) * math.prod(FLAGS.shape),
        f"A volume of {FLAGS.shape} voxels",
        "choose a smaller --shape",
    )
    if FLAGS.picture:
        check_picture(FLAGS.picture)


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
