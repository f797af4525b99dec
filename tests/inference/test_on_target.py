"""What prediction takes on devices that are not here, with this machine's in their place."""

import dataclasses
from collections import Counter

import jax
import pytest

from emsam_jax.blocks import plan_blocks
from emsam_jax.inference import Prediction, Predictor, bound_prediction
from emsam_jax.inference.programs import programs_for
from emsam_jax.targets import TargetDevices, parse_target
from emsam_jax.volumes import Box, box_of
from tests.inference.models import RAW, WINDOW, Hungry, OneSided, specimen_of

H200 = parse_target("h200")
PLAN = plan_blocks(box_of(RAW.shape), Box((1, 0, 3), (11, 19, 26)), (4, 12, 12), (1, 1, 1))  # 12, some cut off


def test_calls_are_those_of_the_run_by_one_program_for_all_blocks():
    settings = Prediction(window=WINDOW, batch=2, symmetries=("zyx", "zyX"))
    lines: list[str] = []
    bound = bound_prediction(
        OneSided(), settings, PLAN, H200, jax.devices()[:1], dtype="float32", say=lines.append, note=lines.append
    )
    assert bound
    programs_for.cache_clear()
    calls: Counter[str] = Counter()
    predictor = Predictor(
        OneSided(), settings, PLAN, devices=jax.devices()[:1], watch=lambda stage, _: calls.update([stage])
    )
    for block in PLAN:
        predictor.predict_block(specimen_of(RAW), block.box)
    foretold = {called.name: called.calls for called in bound.programs}
    assert foretold.pop("finish") == len(PLAN) == 12
    assert foretold == calls
    programs = programs_for((jax.devices()[0],), False, True)
    sizes = {name: getattr(programs, name)._cache_size() for name in ("cut", "blend", "finish")}
    assert sizes == {"cut": 1, "blend": 1, "finish": 1}
    assert len(programs._compiled) == 2  # encoder and decoder, before the first call


def test_blending_moves_windows_and_not_the_block():
    settings = Prediction(window=WINDOW, batch=1, block=(64, 256, 256))
    plan = plan_blocks(box_of((64, 256, 256)), box_of((64, 256, 256)), (64, 256, 256), (1, 1, 1))
    bound = bound_prediction(
        OneSided(), settings, plan, H200, jax.devices()[:1], dtype="float32", say=lambda _: None, note=lambda _: None
    )
    assert bound
    (blend,) = (called for called in bound.programs if called.name == "blend")
    total = 4 * 3 * 64 * 256 * 256
    assert blend.needs.program.bytes < total / 100
    assert blend.needs.bytes < 1.2 * total  # the sum takes the place of the one that is given


@pytest.mark.slow
def test_too_many_windows_are_rows_and_half_as_many_are_tried():
    settings = Prediction(window=WINDOW, batch=8)
    plan = plan_blocks(box_of(RAW.shape), box_of(RAW.shape), RAW.shape, (1, 1, 1))

    def rows(target: TargetDevices) -> list[str]:
        lines: list[str] = []
        bound_prediction(
            Hungry(), settings, plan, target, jax.devices()[:1], dtype="float32", say=lines.append, note=lambda _: None
        )
        return lines

    fits = rows(H200)
    assert [line.split()[0] for line in fits if "does not fit" in line] == ["8", "4"]
    assert any("with 2 windows at once" in line for line in fits)
    nothing = rows(dataclasses.replace(H200, card=dataclasses.replace(H200.card, memory=1e3)))
    assert [line.split()[0] for line in nothing if "does not fit" in line] == ["8", "4", "2", "1"]
    assert nothing[-1].startswith("Nothing fits")
