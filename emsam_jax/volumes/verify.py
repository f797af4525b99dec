"""Checks a volume and its labels before a training is started on them.

    python -m emsam_jax.volumes.verify RAW LABELS [MASK]

Prints what there is, then warnings and errors, one sentence each; exits with 1 on errors.
"""

import sys

from absl import app, flags

from emsam_jax.volumes.declared import LabelRules
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.findings import Finding, alignment_findings, error, quick_findings
from emsam_jax.volumes.flag_values import three, whole_numbers
from emsam_jax.volumes.meet import with_size_of
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.picture import save_picture
from emsam_jax.volumes.specimen import Specimen
from emsam_jax.volumes.survey import survey_labels, survey_raw
from emsam_jax.volumes.volume import Volume

_CROPS = 3  # looked at for the orientation of the labels


def verify(
    raw: Volume,
    labels: Volume | None = None,
    mask: Volume | None = None,
    *,
    rules: LabelRules | None = None,
    picture: str = "",
) -> tuple[list[Finding], list[str]]:
    """Findings and facts. Reads everything once; the picture is drawn if the volumes fit together."""
    rules = rules or LabelRules()
    findings = quick_findings(raw, labels, mask, rules)
    facts = [repr(volume) for volume in (raw, labels, mask) if volume is not None]
    labels, mask = (None if volume is None else with_size_of(raw, volume) for volume in (labels, mask))
    fits = not any(finding.severity == "error" for finding in findings)
    try:
        surveys = [survey_raw(raw)]
        if labels is not None and labels.dtype.kind in "uib":
            surveys.append(survey_labels(labels, mask, rules))
        for survey in surveys:
            findings += survey.findings
            facts += survey.facts
        if labels is not None and fits and not any(finding.severity == "error" for finding in findings):
            specimen = Specimen(raw, labels, mask, rules=rules)
            findings += alignment_findings(specimen, _CROPS)
            if picture:
                save_picture(picture, specimen)
                facts.append(f"Picture: {picture}")
    except VolumeError as problem:
        findings.append(error(str(problem)))
    return list(dict.fromkeys(findings)), facts


def report(findings: list[Finding], facts: list[str]) -> str:
    lines = [*facts, ""]
    for severity in ("warning", "error"):
        texts = [finding.text for finding in findings if finding.severity == severity]
        lines += [f"{severity.capitalize()}s: {len(texts) or 'none'}", *[f"  - {text}" for text in texts]]
    return "\n".join(lines)


FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("background", ["0"], "Ids that are no neuron.")
    flags.DEFINE_list("unlabelled", [str(i) for i in LabelRules().unlabelled], "Ids of voxels that nobody labelled.")
    flags.DEFINE_integer("raw_level", 0, "Level of the raw's pyramid; 0 is the finest.")
    flags.DEFINE_integer("labels_level", 0, "Level of the labels' pyramid.")
    flags.DEFINE_list("voxel_size", [], "z,y,x in nm, of the raw, instead of what it says.")
    flags.DEFINE_list("labels_offset", [], "z,y,x in nm, of the labels, instead of what they say.")
    flags.DEFINE_string("out", "verify.png", "The picture; empty for none.")


def main(arguments: list[str]) -> None:
    if len(arguments) not in (2, 3, 4):
        raise app.UsageError("Expected RAW, LABELS and perhaps MASK.")
    try:
        rules = LabelRules(whole_numbers(FLAGS.background), whole_numbers(FLAGS.unlabelled))
        raw = open_volume(arguments[1], level=FLAGS.raw_level, voxel_size_zyx=three(FLAGS.voxel_size, float))
        labels, mask = None, None
        if len(arguments) > 2:
            offset = three(FLAGS.labels_offset, float)
            labels = open_volume(arguments[2], level=FLAGS.labels_level, offset_zyx=offset)
        if len(arguments) > 3:
            mask = open_volume(arguments[3])
    except VolumeError as problem:
        sys.exit(f"verify: {problem}")
    findings, facts = verify(raw, labels, mask, rules=rules, picture=FLAGS.out)
    print(report(findings, facts))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
