"""Checks a volume and its labels before a training is started on them.

    python -m emsam_jax.volumes.verify RAW LABELS [MASK]

Prints what there is, then warnings and errors, one sentence each; exits with 1 on errors.
"""

import sys

from absl import app, flags

from emsam_jax.config import LabelRules
from emsam_jax.errors import UserError
from emsam_jax.volumes.flag_values import three, whole_numbers
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.picture import check_picture
from emsam_jax.volumes.verify.report import report, verify

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("background", ["0"], "Ids that are no neuron.")
    flags.DEFINE_list("unlabelled", [str(i) for i in LabelRules().unlabelled], "Ids of voxels that nobody labelled.")
    flags.DEFINE_integer("raw_level", 0, "Level of the raw's pyramid; 0 is the finest.")
    flags.DEFINE_integer("labels_level", 0, "Level of the labels' pyramid.")
    flags.DEFINE_list("voxel_size", [], "z,y,x in nm, of the raw, instead of what it says.")
    flags.DEFINE_list("labels_voxel_size", [], "z,y,x in nm, of the labels, instead of what they say.")
    flags.DEFINE_list("labels_offset", [], "z,y,x in nm, of the labels, instead of what they say.")
    flags.DEFINE_string("out", "verify.png", "The picture; empty for none.")


def main(arguments: list[str]) -> None:
    if len(arguments) not in (2, 3, 4):
        raise app.UsageError("Expected RAW, LABELS and perhaps MASK.")
    try:
        if FLAGS.out:
            check_picture(FLAGS.out)
        rules = LabelRules(whole_numbers(FLAGS.background), whole_numbers(FLAGS.unlabelled))
        raw = open_volume(arguments[1], level=FLAGS.raw_level, voxel_size_zyx=three(FLAGS.voxel_size, float))
        labels, mask = None, None
        if len(arguments) > 2:
            labels = open_volume(
                arguments[2],
                level=FLAGS.labels_level,
                voxel_size_zyx=three(FLAGS.labels_voxel_size, float),
                offset_zyx=three(FLAGS.labels_offset, float),
            )
        if len(arguments) > 3:
            mask = open_volume(arguments[3])
    except UserError as problem:
        sys.exit(f"verify: {problem}")
    findings, facts = verify(raw, labels, mask, rules=rules, picture=FLAGS.out)
    print(report(findings, facts))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
