"""Predicts a volume of affinities from a volume of grey values, block by block, resumably."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax

from emsam_jax.blocks import (
    SKIPPED,
    Block,
    GroupReport,
    Ledger,
    Progress,
    RunLock,
    find_todo,
    is_masked,
    say_what_is_left,
)
from emsam_jax.inference.output import STAGE, Output, facts_of
from emsam_jax.inference.predictor import Predictor, Region, Watch
from emsam_jax.inference.programs import AffinityModel, Devices
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.sweep import offsets_of
from emsam_jax.volumes import Box, Specimen, Volume

_AHEAD = 2  # blocks that are read, and blocks that are written, while one is computed


def predict_affinities(
    model: AffinityModel,
    specimen: Specimen,
    out: str | Path,
    settings: Prediction,
    *,
    region: Box | None = None,
    devices: Devices | None = None,
    facts: Mapping[str, str | int] | None = None,
    watch: Watch = lambda stage, result: None,
) -> Volume:
    """Predicts affinities [c, z, y, x] of the region (default: the specimen's region of interest) as OME-Zarr at `out`.

    The output's offset places the region in the world. Resumes when it is called again, or refuses where anything
    differs that affinities depend on; `facts` are more of that, such as the checkpoint's step. `watch` is called with
    the stages as they happen: read, cut, encode, decode, blend, computed, written.
    """
    region = specimen.region if region is None else region
    specimen = specimen.without_region()
    output = Output(str(out), specimen, settings, region, offsets_of(model))
    output.claim()
    with RunLock(output.ledger_url):
        ledger = Ledger(output.ledger_url, STAGE, facts_of(model, specimen, settings, output.plan, **(facts or {})))
        output.open()
        todo = find_todo(output.plan, ledger, output.is_intact if settings.check else None)
        say_what_is_left(STAGE, todo)
        if todo.indices:
            predictor = Predictor(model, settings, output.plan, devices=devices, watch=watch)
            with Progress(STAGE, todo, settings.progress) as shown:
                predictor.advance = shown.advance
                for block in predict_blocks(predictor, specimen, output, ledger, todo.blocks):
                    shown.add(GroupReport(1, block.box.voxels))
    return output.reopen()


def predict_blocks(
    predictor: Predictor, specimen: Specimen, output: Output, ledger: Ledger, blocks: list[Block]
) -> Iterator[Block]:
    """Yields each block once it is in the ledger. Computes one while others are read and written."""
    writing: deque[Future[Block]] = deque()

    def compute(reading: Future[Region | None]) -> jax.Array | None:
        region = reading.result()
        found = None if region is None else predictor.predict(region)
        predictor.watch("computed", found)
        return found

    def store(block: Block, found: jax.Array | None, seconds: float) -> Block:
        with ledger.keeping_failures(block):
            ledger.expect_lease()
            checksum = write_block(predictor, output, block, found)
            predictor.watch("written", None)
            ledger.record(block, checksum, seconds)
        return block

    with ThreadPoolExecutor(_AHEAD) as readers, ThreadPoolExecutor(1) as writer:
        for block, reading in read_ahead(predictor, specimen, blocks, readers):
            start = time.monotonic()
            with ledger.keeping_failures(block):
                found = compute(reading)
            writing.append(writer.submit(store, block, found, time.monotonic() - start))
            del found, reading  # the next block needs the room
            while len(writing) >= _AHEAD or (writing and writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()


def read_ahead(
    predictor: Predictor, specimen: Specimen, blocks: list[Block], readers: ThreadPoolExecutor
) -> Iterator[tuple[Block, Future[Region | None]]]:
    reading: deque[tuple[Block, Future[Region | None]]] = deque()
    for block in blocks:
        reading.append((block, readers.submit(read_block, predictor, specimen, block)))
        if len(reading) > _AHEAD:
            yield reading.popleft()
    while reading:
        yield reading.popleft()


def read_block(predictor: Predictor, specimen: Specimen, block: Block) -> Region | None:
    """Reads a block with its halo; None outside the mask."""
    if is_masked(specimen, block.box):
        return None
    region = predictor.read(specimen, block.box)
    predictor.watch("read", region.raw)
    return region


def write_block(predictor: Predictor, output: Output, block: Block, found: jax.Array | None) -> str:
    """Writes a block and returns the checksum for the ledger."""
    return SKIPPED if found is None else output.write(block, predictor.fetch(found, block.box))
