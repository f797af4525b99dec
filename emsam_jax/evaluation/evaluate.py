"""Scores a model, its stored affinities or anyone's segmentation: scores.json and report.html."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emsam_jax.errors import UserError
from emsam_jax.evaluation.clock import Clock
from emsam_jax.evaluation.compared import BASELINE, STORED, without_network
from emsam_jax.evaluation.judging import Judge, Judged, judge_labels
from emsam_jax.evaluation.recipes import Frozen, freeze
from emsam_jax.evaluation.results import SAVED, check_outputs, describe, format_table, list_shown, save_labels
from emsam_jax.evaluation.sources import AffinitySource, EvaluationRequest, Stored
from emsam_jax.evaluation.subject import Example, Subject, name_apart, read_segmentation, read_subject
from emsam_jax.storage import EVALUATION, claim, write_whole
from emsam_jax.view import Exhibit, Illustrations, find_standings, illustrate, render
from emsam_jax.volumes import Part, as_unit, open_declared, open_volume, part_of, refuse_overlap

Show = Callable[[str], None]


def evaluate(request: EvaluationRequest, show: Show = print) -> dict[str, Any]:
    """Scores the test volumes by recipes chosen on the validation volumes; returns what scores.json holds."""
    clock = Clock(show)
    find_standings(request.standings)
    source = _open_source(request, clock)
    test = [dataclasses.replace(declared, roi=request.roi or declared.roi) for declared in source.test]
    if not test:
        raise UserError(f"{request.ckpt}: its config names no test volume; give --raw and --labels.")
    everything = name_apart([*test, *source.validation])
    read = [read_subject(open_declared(declared), request.conventions) for declared in everything]
    subjects, held_out = read[: len(test)], read[len(test) :]
    split = _split(source, held_out, subjects)
    overlaps = refuse_overlap(split, allowed=request.allow_overlap)
    sources = check_outputs(request.out, subjects, [request.affinities, request.segmentation])
    if request.skeletons:
        subjects = [_with_skeletons(subject, request.skeletons, clock) for subject in subjects]
    if request.ckpt:  # predictions lie there before any result
        claim(request.out, EVALUATION, sources)
    frozen = freeze(request, source, subjects[0].isotropic, held_out, clock)
    show(f"  {frozen.how}")

    scores = describe(request, source, subjects, frozen) | {
        "split": [part.describe() for part in split],
        "overlaps": overlaps,
    }
    pictures: dict[str, Illustrations] = {}
    for subject in subjects:
        name, voxels = subject.name, subject.box.voxels
        example = None if request.segmentation else source.read(subject)
        judged = _judge(request, subject, example, frozen, clock)
        scores["volumes"][name] = {method: found.entry for method, found in judged.items()}
        with clock.stage(name, "saving", voxels):
            claim(request.out, EVALUATION, sources)
            for label, found in zip(SAVED, (judged[frozen.headline].labels, judged[BASELINE].oracle), strict=True):
                save_labels(request.out, subject, label, found)
            scores["data"][name]["shown"] = list_shown(request.out, subject, example.url if example else "")
        with clock.stage(name, "pictures", voxels):
            pictures[name] = _illustrate(subject, example, judged[frozen.headline], len(subjects))
    scores["reliability"] = source.tell_reliability()
    scores["stages"] = clock.describe()
    out = Path(request.out)
    _write(out, scores, frozen, render(scores, pictures))
    if request.update_checkpoint:
        source.take_over(frozen.recipes[frozen.headline])
    show(
        f"{format_table(scores)}\n\nScores: {out / 'scores.json'}\nReport: {out / 'report.html'}\n"
        f"In the viewer: emsam view --out={request.out}"
    )
    return scores


def _open_source(request: EvaluationRequest, clock: Clock) -> AffinitySource:
    if not request.ckpt:
        return Stored(request, clock)
    from emsam_jax.evaluation.predicted import Predicted  # a stored result is judged without jax

    return Predicted(request, clock)


def _with_skeletons(subject: Subject, path: str, clock: Clock) -> Subject:
    with clock.stage(subject.name, "skeletons", subject.box.voxels):
        return subject.with_skeletons(path)


def _split(source: AffinitySource, held_out: Sequence[Subject], subjects: Sequence[Subject]) -> list[Part]:
    validation = [part_of("validation", subject.specimen) for subject in held_out]
    return [*source.training, *validation, *(part_of("test", subject.specimen) for subject in subjects)]


def _judge(
    request: EvaluationRequest, subject: Subject, example: Example | None, frozen: Frozen, clock: Clock
) -> dict[str, Judged]:
    """Judges the headline first, the baseline last; drops the others' labels, since they are large."""
    threads, judged = request.threads, {}
    if example is None:
        labels, covered = read_segmentation(subject, open_volume(request.segmentation))
        if covered < 1:
            clock.show(f"  {subject.name}: the segmentation covers {covered:.1%}; the rest counts as unsegmented.")
        judged[STORED] = judge_labels(STORED, labels, subject, clock, threads)
    else:
        judge = Judge(example, clock, threads)
        for name in sorted(set(frozen.recipes) - {BASELINE}, key=lambda name: (name != frozen.headline, name)):
            found, recipe = judge.judge_method(name, frozen.recipes[name]), frozen.recipes[name]
            if name == frozen.headline and recipe.cuts and found.labels is not None:
                found.entry["decisions"] = judge.judge_decisions(name, recipe, found.labels)
            judged[name] = found if name == frozen.headline else found.without_labels()
    judge = Judge(without_network(subject), clock, threads)
    judged[BASELINE] = judge.judge_method(BASELINE, frozen.recipes[BASELINE])
    return judged


def _illustrate(subject: Subject, example: Example | None, judged: Judged, volumes: int) -> Illustrations:
    """Draws each volume; fewer sections where there are many, since the page is to be mailed."""
    assert judged.labels is not None
    exhibit = Exhibit(
        raw=subject.read_normalised(),
        labels=judged.labels,
        truth=subject.truth,
        labelled=subject.labelled,
        affinities=None if example is None else as_unit(example.affinities[:3]),
        worst=judged.entry["worst"],
        voxel_size_zyx=subject.voxel_size_zyx,
        start_zyx=subject.box.start,
    )
    return illustrate(exhibit, sections=max(1, 4 - volumes))


def _write(out: Path, scores: dict[str, Any], frozen: Frozen, page: str) -> None:
    write_whole(out / "scores.json", json.dumps(scores, indent=1, allow_nan=False) + "\n")
    if frozen.headline in frozen.recipes:
        frozen.recipes[frozen.headline].write(out / "postprocess.json")
    write_whole(out / "report.html", page)
