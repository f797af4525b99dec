"""How far a run is, from its ledgers alone."""

import math

from emsam_jax.blocks import describe_status
from emsam_jax.blocks.ledger import read_facts
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.box import Box, parse_box
from emsam_jax.volumes.location import normalise

_STAGES = ("predict", "fragments", "edges", "graph", "merges", "lookup", "labels")
_WHOLE = ("graph", "lookup")  # of one block
_EVERYWHERE = Box((0, 0, 0), (1 << 62, 1 << 62, 1 << 62))


def describe_run(out: str) -> str:
    """Of the stages that were begun."""
    out = normalise(out)
    lines = []
    for stage in _STAGES:
        ledger = f"{out}/affinities/ledger" if stage == "predict" else f"{out}/ledger"
        facts = read_facts(ledger, stage)
        if facts is None:
            continue
        shape = parse_box(facts["region"], _EVERYWHERE).shape if stage == "predict" else facts["shape"]
        counts = [-(-side // own) for side, own in zip(shape, facts["blocks"], strict=True)]
        lines.append(describe_status(ledger, {stage: 1 if stage in _WHOLE else math.prod(counts)}))
    if not lines:
        raise VolumeError(f"{out}: expected a run of segment.py there, found none; --out names its labels.")
    return "\n".join(lines)
