"""Affinities that a run predicted, deleted once it needs them no more: they dwarf all that is made of them."""

import tensorstore as ts

from emsam_jax.blocks import DROPPED, Block, Ledger, RunLock, drop_block, find_todo, plan_blocks
from emsam_jax.blocks.ledger import read_facts
from emsam_jax.segmentation.blockwise import Step
from emsam_jax.volumes import Volume, VolumeError, box_of, open_volume
from emsam_jax.volumes.context import shared_context

_STAGE = "predict"


def drop_affinities(affinities: Volume) -> None:
    """Each block is recorded as dropped before it is deleted, the first one before all others."""
    url = affinities.url
    with RunLock(f"{url}/ledger"):
        facts, ledger = read_facts(f"{url}/ledger", _STAGE), Ledger.existing(f"{url}/ledger", _STAGE)
        if facts is None or ledger is None:
            raise VolumeError(f"{url}: expected affinities that segment.py predicted, found no ledger of it.")
        maps = [open_to_write(each) for each in (url, f"{url}/coarse")[: 1 + facts.flag("coarse")]]
        whole = box_of(affinities.shape[-3:])
        for block in plan_blocks(whole, whole, facts.sides("blocks"), (1, 1, 1)):
            entry = ledger.entry(block)
            if entry is None or entry.checksum != DROPPED:
                ledger.record(block, DROPPED, entry.seconds if entry else 0.0)
            for volume in maps:
                drop_block(volume, block.box)


def open_to_write(url: str) -> Volume:
    spec = open_volume(url, channel="all").store.spec()
    return Volume(ts.open(spec, context=shared_context(), open=True, read=True, write=True).result(), url)


def content_of_dropped(affinities: Volume, graph: str) -> str:
    """What the graph's ledger says of affinities that are gone, or about to be; empty while they are there."""
    ledger = Ledger.existing(f"{affinities.url}/ledger", _STAGE)
    facts = read_facts(f"{graph}/ledger", "edges")
    if ledger is None or facts is None:
        return ""
    first = ledger.entry(Block((0, 0, 0), affinities.box))
    return facts.text("content") if first and first.checksum == DROPPED else ""


def expect_done(step: Step, *, check: bool) -> None:
    """A step that would read them."""
    todo = find_todo(step.plan, step.open_ledger(), step.stage.is_intact if check else None)
    if todo.indices:
        raise VolumeError(
            f"{step.ledger_url.removesuffix('/ledger')}: expected all of {step.stage.name}, because the affinities "
            f"were deleted (--nokeep_affinities), found {len(todo.indices)} of {len(todo.plan)} blocks damaged or "
            "missing; choose another output to predict again."
        )
