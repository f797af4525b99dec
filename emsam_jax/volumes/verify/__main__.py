"""Checks a volume and its labels before a model is trained on them.

    emsam verify em.zarr labels.zarr
    emsam verify em.zarr labels.zarr mask.zarr --out=check.png

Prints what is there, then warnings and errors, a sentence each, and draws raw and labels side by side. Exit codes: 0
without errors, 1 with some.
"""

import sys

from emsam_jax.command_line import FLAGS, define_arguments, define_ids, define_zyx, flags, group, run
from emsam_jax.config import LabelRules
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.picture import check_picture
from emsam_jax.volumes.verify.report import report, verify


def define_flags() -> None:
    define_arguments("RAW", "[LABELS]", "[MASK]")
    with group("Raw volume"):
        flags.DEFINE_integer("raw_level", 0, "Pyramid level of RAW; 0 is the finest.")
        define_zyx("voxel_size", float, "Voxel size of RAW, `z,y,x` in nm, in place of its metadata's.")
    with group("Labels"):
        flags.DEFINE_integer("labels_level", 0, "Pyramid level of LABELS; 0 is the finest.")
        define_zyx("labels_voxel_size", float, "Voxel size of LABELS, `z,y,x` in nm, in place of their metadata's.")
        define_zyx("labels_offset", float, "Position of the first voxel of LABELS, `z,y,x` in nm.")
        define_ids("background", (0,), "Label `IDS` of background (membrane, extracellular space).")
        define_ids("unlabelled", LabelRules().unlabelled, "Label `IDS` of voxels that nobody annotated.")
    with group("Output"):
        flags.DEFINE_string("out", "verify.png", "Picture `FILE` to draw; empty for none.")


def main(arguments: list[str]) -> None:
    if FLAGS.out:
        check_picture(FLAGS.out)
    rules = LabelRules(FLAGS.background, FLAGS.unlabelled)
    raw = open_volume(arguments[0], level=FLAGS.raw_level, voxel_size_zyx=FLAGS.voxel_size)
    labels, mask = None, None
    if len(arguments) > 1:
        labels = open_volume(
            arguments[1],
            level=FLAGS.labels_level,
            voxel_size_zyx=FLAGS.labels_voxel_size,
            offset_zyx=FLAGS.labels_offset,
        )
    if len(arguments) > 2:
        mask = open_volume(arguments[2])
    findings, facts = verify(raw, labels, mask, rules=rules, picture=FLAGS.out)
    print(report(findings, facts))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
