"""A volume of affinities from a volume of grey values, block by block: it may be stopped at any time and goes on."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
from tqdm import tqdm

from emsam_jax.blocks import SKIPPED, Block, Ledger, RunLock, find_todo, is_masked
from emsam_jax.inference.identity import facts_of
from emsam_jax.inference.output import STAGE, Output
from emsam_jax.inference.predictor import AffinityModel, Predictor, Region, Watch, offsets_of
from emsam_jax.inference.programs import Devices
from emsam_jax.inference.settings import Prediction
from emsam_jax.volumes import Box, Specimen, Volume
from emsam_jax.volumes.box import Voxel

_AHEAD = 2  # blocks that are read, and blocks that are written, while one is computed


def predict_affinities(
    model: AffinityModel,
    specimen: Specimen,
    out: str | Path,
    settings: Prediction,
    *,
    region: Box | None = None,
    offsets: Sequence[Voxel] | None = None,
    devices: Devices | None = None,
    facts: Mapping[str, str | int] | None = None,
    watch: Watch = lambda stage, result: None,
) -> Volume:
    """Affinities [c, z, y, x] of the region (by default the specimen's region of interest) as OME-Zarr at `out`.

    Its offset tells where in the world the region lies. Called again it goes on where it was stopped, or refuses where
    anything differs that affinities depend on; `facts` are more of that, such as the checkpoint's step. `watch` is told
    the stages as they happen: read, cut, encode, decode, blend, computed, written.
    """
    region = specimen.region if region is None else region
    # Percentiles of the whole volume's grey values: a region of interest must not change them.
    specimen = Specimen(specimen.raw, mask=specimen.mask, name=specimen.name, intensity=specimen.intensity)
    offsets = offsets_of(model) if offsets is None else tuple(offsets)
    output = Output(str(out), specimen, settings, region, len(offsets))
    output.check_free()
    with RunLock(output.ledger_url):
        ledger = Ledger(output.ledger_url, STAGE, facts_of(model, specimen, settings, output.plan, **(facts or {})))
        output.open()
        todo = find_todo(output.plan, ledger, output.is_intact if settings.check else None)
        say_what_is_left(output, todo.blocks, len(todo.damaged))
        if todo.blocks:
            predictor = Predictor(model, settings, output.plan, offsets=offsets, devices=devices, watch=watch)
            with progress_bar(output, todo.blocks, settings.progress) as bar:
                for block in predict_blocks(predictor, specimen, output, ledger, todo.blocks):
                    bar.update(block.box.voxels)
    return output.reopen()


def predict_blocks(
    predictor: Predictor, specimen: Specimen, output: Output, ledger: Ledger, blocks: list[Block]
) -> Iterator[Block]:
    """Each as soon as it is in the ledger. One is computed while others are read and written."""
    writing: deque[Future[Block]] = deque()

    def compute(reading: Future[Region | None]) -> jax.Array | None:
        region = reading.result()
        found = None if region is None else predictor.predict(region)
        predictor.watch("computed", found)
        return found

    def store(block: Block, found: jax.Array | None, seconds: float) -> Block:
        with ledger.keeping_failures(block):
            checksum = SKIPPED if found is None else output.write(block, predictor.fetch(found, block.box))
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
    def read(block: Block) -> Region | None:
        if is_masked(specimen, block.box):
            return None
        region = predictor.read(specimen, block.box)
        predictor.watch("read", region.raw)
        return region

    reading: deque[tuple[Block, Future[Region | None]]] = deque()
    for block in blocks:
        reading.append((block, readers.submit(read, block)))
        if len(reading) > _AHEAD:
            yield reading.popleft()
    while reading:
        yield reading.popleft()


def say_what_is_left(output: Output, blocks: list[Block], damaged: int) -> None:
    total = len(output.plan)
    if len(blocks) == total and not damaged:
        return
    again = f"; {damaged} of them damaged, to be done again" if damaged else ""
    done = f"{total - len(blocks)} of {total} blocks are done"
    ahead = f"goes on at block {blocks[0].name}" if blocks else "nothing is left to do"
    print(f"Prediction {output.url}: {done}{again}; {ahead}.", file=sys.stderr)


def progress_bar(output: Output, blocks: list[Block], shown: bool) -> tqdm:
    """Counts voxels, with their rate and the time left."""
    total = output.plan.region.voxels
    return tqdm(
        desc="Affinities",
        total=total,
        initial=total - sum(block.box.voxels for block in blocks),
        unit="voxel",
        unit_scale=True,
        disable=not shown,
        file=sys.stderr,
    )
