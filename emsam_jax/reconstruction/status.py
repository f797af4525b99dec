"""How far a run is, from its ledgers alone."""

import itertools

from emsam_jax.blocks import describe_status, plan_blocks
from emsam_jax.blocks.ledger import read_facts
from emsam_jax.volumes import VolumeError, box_of
from emsam_jax.volumes.box import Box, parse_box
from emsam_jax.volumes.location import normalise

_STAGES = ("predict", "fragments", "edges", "graph", "merges", "lookup", "labels")
_WHOLE = ("graph", "lookup")  # of one block
_EVERYWHERE = Box((0, 0, 0), (1 << 20, 1 << 21, 1 << 21))


def describe_run(out: str) -> str:
    """Of the stages that were begun."""
    out = normalise(out)
    lines = []
    levels = map("pyramid-{}".format, itertools.count(1))
    pyramid = itertools.takewhile(lambda stage: read_facts(f"{out}/ledger", stage) is not None, levels)
    for stage in (*_STAGES, *pyramid):
        ledger = f"{out}/affinities/ledger" if stage == "predict" else f"{out}/ledger"
        facts = read_facts(ledger, stage)
        if facts is None:
            continue
        predicted = stage == "predict"
        whole = box_of(parse_box(facts.text("region"), _EVERYWHERE).shape if predicted else facts.sides("shape"))
        block = whole.shape if stage in _WHOLE else facts.sides("blocks")
        lines.append(describe_status(ledger, {stage: plan_blocks(whole, whole, block, (1, 1, 1))}))
    if not lines:
        raise VolumeError(f"{out}: expected a run of segment.py there, found none; --out names its labels.")
    return "\n".join(lines)
