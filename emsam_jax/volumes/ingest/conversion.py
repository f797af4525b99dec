"""Copies a volume of any format into a new one, with its pyramid, resumably."""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from emsam_jax.blocks import Ledger, RunLock, content_of, files_of, read_facts
from emsam_jax.errors import UserError
from emsam_jax.storage import (
    CONVERSION,
    UNFINISHED,
    VOLUME_FILES,
    VOLUMES,
    check_free,
    claim,
    end_replacing,
    open_folder,
    put_in_place,
    read_key,
    remove,
    write_key,
)
from emsam_jax.volumes.box import Box
from emsam_jax.volumes.create import create_array, occupied, write_image_metadata
from emsam_jax.volumes.ingest.level import Copyable, LevelCopy, plan_shards, refuse_too_large
from emsam_jax.volumes.layout import Layout, plan_layout
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.pyramid import Method, plan_levels, read_coarsened
from emsam_jax.volumes.volume import Volume

_KEPT = ("ledger/running.json", UNFINISHED)  # while a run is at work


def ingest(
    source: Copyable,
    destination: str,
    *,
    format: str = "ome-zarr",  # noqa: A002
    chunk: tuple[int, int, int] | None = None,
    shard: tuple[int, int, int] | None = None,
    pyramid: Method | None = None,
    overwrite: bool = False,
    check: bool = True,
    check_room: bool = True,
    progress: bool = False,
) -> Volume:
    """Copies shard by shard, two at a time. The source's box, sizes and dtype stay as they are.

    `pyramid` says how coarser levels are made, if they are wanted: of grey values by their mean, of ids by their mode.
    Called again it goes on where it was stopped; `check` reads what is there and does again what is damaged.
    `overwrite` replaces a volume that this software wrote, once the new one, for which it needs room too, is whole; in
    an object store, which cannot rename, it is deleted first.
    """
    layout = plan_layout(
        destination,
        source.shape,
        source.dtype,
        source.voxel_size_zyx,
        offset_zyx=source.offset_zyx,
        format=format,  # pyright: ignore[reportArgumentType]  # checked there
        chunk=chunk,
        shard=shard,
        offsets=source.offsets,
    )
    if check_room:
        refuse_too_large(layout)
    end_replacing(layout.url)
    facts = facts_of(source, layout, pyramid)
    begun = layout.beside() if overwrite else layout
    exists = begun != layout and check_free(layout.url, CONVERSION, [source.url], over=VOLUMES)
    # What is replaced must not be at work.
    with RunLock(ledger_url_of(layout)) if exists else contextlib.nullcontext():
        copy(source, begun, facts, pyramid, overwrite=overwrite, check=check, progress=progress)
        if begun != layout:
            put_in_place(layout.url)
    return open_volume(layout.url, channel="all" if len(layout.shape) == 4 else None)


def copy(
    source: Copyable,
    layout: Layout,
    facts: dict[str, Any],
    pyramid: Method | None,
    *,
    overwrite: bool,
    check: bool,
    progress: bool,
) -> None:
    """All levels, as far as the ledger says that they are not done."""
    levels = plan_levels(layout) if pyramid else [layout]
    claim(layout.url, CONVERSION, [source.url], over=VOLUMES if overwrite else [])
    with RunLock(ledger_url_of(layout)):
        going_on = begin(layout, facts, overwrite=overwrite)
        stages = open_stages(source, levels, facts, pyramid)
        todos = [stage.find_todo(check=check) for stage in stages]
        total, left = (sum(len(todo.plan) for todo in todos), sum(len(todo.indices) for todo in todos))
        if damaged := sum(len(todo.damaged) for todo in todos):
            print(f"{layout.url}: {damaged} shards are damaged or missing; they are written again.", file=sys.stderr)
        if left or is_unfinished(layout.url):
            write_key(open_folder(layout.url), UNFINISHED, b"{}")
            with tqdm(total=total, initial=total - left, unit="shard", disable=not progress, file=sys.stderr) as bar:
                for stage, todo in zip(stages, todos, strict=True):
                    for _ in stage.copy(todo):
                        bar.update()
            finish(source, levels, facts, torn=going_on)
        else:
            print(f"{layout.url}: all {total} shards are done already.", file=sys.stderr)


def facts_of(source: Copyable, layout: Layout, pyramid: Method | None) -> dict[str, Any]:
    """Returns all that the destination's voxels depend on."""
    return {
        "source": source.url,
        "source_files": files_of(source.url),
        "source_content": content_of(source.read, source.box),
        "format": layout.format,
        "shape": list(layout.shape),
        "dtype": layout.dtype.name,
        "voxel_size_zyx": list(layout.voxel_size_zyx),
        "offset_zyx": list(layout.offset_zyx),
        "chunk": list(layout.chunk),
        "shard": list(layout.shard),
        "pyramid": pyramid,
    }


def begin(layout: Layout, facts: dict[str, Any], *, overwrite: bool) -> bool:
    """Returns whether there is work to resume; refuses another conversion's, and clears what is to be replaced."""
    url, found = layout.url, read_facts(ledger_url_of(layout), _name_of(0))
    unfinished = is_unfinished(url)
    if found is None and occupied(url) and not unfinished and not overwrite:
        raise UserError(f"{url}: there is a volume already; choose another place or --overwrite.")
    if found is None or (overwrite and not (unfinished and found.items() >= facts.items())):
        write_key(open_folder(url), UNFINISHED, b"{}")
        remove(url, VOLUME_FILES, keep=_KEPT)
        return False
    for fact, value in facts.items():
        if found.get(fact) != value:
            raise UserError(
                f"{url} holds {'an unfinished' if unfinished else 'a'} conversion whose {fact} is {found.get(fact)}, "
                f"not {value}: {'finish that one' if unfinished else 'choose another place'}, or --overwrite."
            )
    return True


def open_stages(
    source: Copyable, levels: list[Layout], facts: dict[str, Any], pyramid: Method | None
) -> list[LevelCopy]:
    """Opens the levels from the finest; each is read from the one before it."""
    targets = [create_array(level, resume=True) for level in levels]
    reads: list[Callable[[Box], np.ndarray]] = [source.read]
    if pyramid:
        pairs = zip(targets, levels[1:], strict=False)
        reads += [functools.partial(read_coarsened, *pair, method=pyramid) for pair in pairs]
    return [
        LevelCopy(plan_shards(level), read, target, Ledger(ledger_url_of(level), _name_of(level.level), facts))
        for level, read, target in zip(levels, reads, targets, strict=True)
    ]


def finish(source: Copyable, levels: list[Layout], facts: dict[str, Any], *, torn: bool) -> None:
    """Makes the levels one volume that opens; `torn` removes what killed runs left."""
    url = levels[0].url
    if (files := files_of(source.url)) != facts["source_files"]:
        raise UserError(
            f"{source.url}: expected the files that the conversion began with ({facts['source_files']}), found others "
            f"({files}); {url} stays unfinished: --overwrite begins anew."
        )
    write_image_metadata(*levels)
    if torn:
        remove(url, VOLUME_FILES, keep=_KEPT, torn=True)
    write_key(open_folder(url), UNFINISHED, None)


def is_unfinished(url: str) -> bool:
    return read_key(open_folder(url), UNFINISHED) is not None


def ledger_url_of(layout: Layout) -> str:
    return f"{layout.url}/ledger"


def _name_of(level: int) -> str:
    return f"level{level}"
