"""Writes a config for your volume and its labels, with the reason of each choice.

    emsam prepare em.zarr labels.zarr --out=experiment.py
    emsam prepare sample_A_20160501.hdf --out=cremi.py --hours=12
    emsam prepare --volume=a.h5/raw,a.h5/labels --volume=b.h5/raw,b.h5/labels --out=both.json

Looks at the volumes, splits them into training, validation and test, and times a training step on this device, so that
the training takes the hours that are asked for. A file of CREMI's layout, with its raw and labels, is named alone. What
only a person can decide is said in one line, with the flag that decides it.
"""

import shlex
import sys
from pathlib import Path

from emsam_jax.command_line import FLAGS, define_arguments, define_ids, define_zyx, flags, group, run
from emsam_jax.config import LabelRules
from emsam_jax.errors import UserError

ZERO = ("background", "unlabelled", "sections")


def define_flags() -> None:
    define_arguments("[RAW]", "[LABELS]", "[MASK]")
    with group("Volumes"):
        flags.DEFINE_multi_string(
            "volume", [], "A volume, `RAW,LABELS[,MASK]`, in place of RAW and LABELS. May be repeated."
        )
        define_zyx("voxel_size", float, "Voxel size of the raw volumes, `z,y,x` in nm, in place of their metadata's.")
    with group("Labels"):
        flags.DEFINE_enum(
            "zero",
            None,
            ZERO,
            "Meaning of the label 0: background (membrane), unlabelled (nobody looked), or sections, background in "
            "sections with neurons and unlabelled in the others; by default what the volume looks like.",
        )
        define_ids("background", (), "Other label `IDS` of background (membrane, extracellular space).")
        define_ids("unlabelled", LabelRules().unlabelled, "Other label `IDS` of voxels that nobody annotated.")
    with group("Training"):
        flags.DEFINE_float("hours", 2.0, "Time that training may take on this device, in `HOURS`.", lower_bound=1e-6)
        flags.DEFINE_string(
            "weights", "", "SAM2's image encoder, `FOLDER`; without it, on accelerators, what lies in weights/."
        )
        flags.DEFINE_bool("trial", True, "Time training steps on this device; --notrial estimates them.")
    with group("Output"):
        flags.DEFINE_string("out", "experiment.py", "Config to write, `FILE.py`, or FILE.json of what differs.")
        flags.DEFINE_bool("overwrite", False, "Replace the config that lies at --out.")


def volumes(arguments: list[str]) -> list[list[str]]:
    named = [text.split(",") for text in FLAGS.volume]
    if any(not 1 <= len(places) <= 3 or not places[0] for places in named):
        raise UserError(f"--volume: expected RAW,LABELS or RAW,LABELS,MASK, found {FLAGS.volume}.")
    found = [arguments, *named] if arguments else named
    if not found:
        raise UserError("Expected RAW, or --volume=RAW,LABELS, found none (see --help).")
    return found


def main(arguments: list[str]) -> None:
    # Here, so that --help is at once.
    from emsam_jax.prepare.prepare import Request, prepare

    request = Request(
        volumes=tuple(tuple(places) for places in volumes(arguments)),
        out=Path(FLAGS.out),
        voxel_size_zyx=FLAGS.voxel_size or (),
        rules=LabelRules(FLAGS.background, FLAGS.unlabelled),
        zero=FLAGS.zero,
        hours=FLAGS.hours,
        weights=FLAGS.weights,
        trial=FLAGS.trial,
        overwrite=FLAGS.overwrite,
        called=shlex.join(["emsam", "prepare", *sys.argv[1 + (sys.argv[1:2] == ["prepare"]) :]]),
    )
    prepare(request)


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
