"""Checks a volume and its labels in full, and formats the report."""

import numpy as np
from jaxtyping import Integer

from emsam_jax.config import LabelRules
from emsam_jax.errors import UserError
from emsam_jax.volumes.meet import nearest_indices, with_size_of
from emsam_jax.volumes.picture import save_picture
from emsam_jax.volumes.specimen import Specimen
from emsam_jax.volumes.verify.findings import Finding, alignment_findings, error, fit_findings, missing_findings
from emsam_jax.volumes.verify.survey import survey_labels, survey_raw
from emsam_jax.volumes.volume import Volume

_MOST_VOXELS = 10**12  # hours of reading
_CROPS = 3  # looked at for the orientation of the labels


def verify(
    raw: Volume,
    labels: Volume | None = None,
    mask: Volume | None = None,
    *,
    rules: LabelRules | None = None,
    picture: str = "",
) -> tuple[list[Finding], list[str]]:
    """Returns findings and facts. Reads everything once; draws the picture if the volumes fit together."""
    rules = rules or LabelRules()
    findings = fit_findings(raw, labels, mask)
    facts = [repr(volume) for volume in (raw, labels, mask) if volume is not None]
    labels, mask = (None if volume is None else with_size_of(raw, volume) for volume in (labels, mask))
    for volume in (raw, labels, mask):
        if volume is not None:
            findings += missing_findings(volume, sparse=volume is labels and 0 in rules.unlabelled)
            findings += _size_findings(volume)
    fits = not any(finding.severity == "error" for finding in findings)
    try:
        if max(volume.box.voxels for volume in (raw, labels, mask) if volume is not None) > _MOST_VOXELS:
            return findings, facts
        surveys = [survey_raw(raw)]
        if labels is not None and labels.dtype.kind in "uib":
            surveys.append(survey_labels(labels, mask, rules))
        for survey in surveys:
            findings += survey.findings
            facts += survey.facts
        if labels is not None and fits and not any(finding.severity == "error" for finding in findings):
            specimen = Specimen(raw, labels, mask, rules=rules)
            findings += alignment_findings(specimen, _CROPS, search=True)
            sections = sections_to_show(specimen, surveys[-1].labelled_voxels)
            if picture and sections:
                save_picture(picture, specimen, sections)
                facts.append(f"Picture: {picture}")
    except UserError as problem:
        findings.append(error(str(problem)))
    return findings, facts


def _size_findings(volume: Volume) -> list[Finding]:
    if volume.box.voxels <= _MOST_VOXELS:
        return []
    return [
        error(
            f"{volume.url} has {volume.box.voxels:.2g} voxels, all of which would be read: expected at most "
            f"{_MOST_VOXELS:.2g}; choose a coarser level (--raw_level, --labels_level)."
        )
    ]


def sections_to_show(specimen: Specimen, labelled_voxels: Integer[np.ndarray, " z"]) -> list[int]:
    """Returns sections of the raw at a sixth, a half and five sixths of those that are labelled."""
    assert specimen.labels is not None
    on_raw = nearest_indices(specimen.labels, specimen.raw, specimen.labels.box)[0][labelled_voxels > 0]
    region = specimen.labelled_region
    on_raw = on_raw[(on_raw >= region.start[0]) & (on_raw < region.stop[0])]
    return [int(on_raw[len(on_raw) * part // 6]) for part in (1, 3, 5)] if len(on_raw) else []


def report(findings: list[Finding], facts: list[str]) -> str:
    lines = [*facts, ""]
    for severity in ("warning", "error"):
        texts = [finding.text for finding in findings if finding.severity == severity]
        lines += [f"{severity.capitalize()}s: {len(texts) or 'none'}", *[f"  - {text}" for text in texts]]
    return "\n".join(lines)
