"""Where this software may write: an empty place, or one that it began itself; what others put there is left alone."""

import contextlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from emsam_jax.errors import UserError
from emsam_jax.storage.apart import check_apart, places_of
from emsam_jax.storage.location import is_remote, normalise, open_folder, read_key, write_key
from emsam_jax.storage.removal import TORN, list_keys

UNFINISHED = "unfinished.json"  # in a volume that is written at once, until it is whole
MARKER = "emsam_jax.json"
_SHOWN = 3  # names in a message
_OUTPUTS = (".log", ".out", ".err")  # what a queueing system keeps of the job that runs the command
_LEDGER = r"ledger/(running\.json|[\w-]+/(identity\.json|(done|failed)/\d+-\d+-\d+))"
_SIZE = r"[\d.e+-]+"
_CHUNKS = rf"\d+/c(/\d+)+|\d+(/\d+){{3,4}}|{_SIZE}_{_SIZE}_{_SIZE}/[0-9a-f]+\.shard"
_METADATA = r"unfinished\.json|(\d+/)?(zarr\.json|\.zattrs|\.zarray)|\.zgroup|info"
VOLUME_FILES = rf"{_METADATA}|{_CHUNKS}|{_LEDGER}"  # keys of any of VOLUMES


class Kind(NamedTuple):
    """One kind of work."""

    name: str  # in the marker
    title: str  # in a sentence
    written: tuple[str, ...] = ()  # names in a folder that several runs may share; by default the folder is its own


VOLUME = Kind("volume", "a volume")
CONVERSION = Kind("conversion", "a conversion by emsam ingest")
SYNTHETIC = Kind("synthetic", "a synthetic volume")
LABELS = Kind("labels", "labels of emsam eval")
PREDICTION = Kind("prediction", "a prediction")
SEGMENTATION = Kind("segmentation", "a run of emsam segment")
OBJECTS = Kind("objects", "a run of emsam objects")
EVALUATION = Kind("evaluation", "results of emsam eval", written=("scores.json", "report.html", "postprocess.json"))
TRAINING = Kind(
    "training",
    "a run of emsam train",
    written=(
        *("running.json", "config.json", "metrics.jsonl", "curves.png", "checkpoints"),
        *("encoder", "encoder.partial", "encoder.replaced", "samples", "tensorboard", "validating"),
    ),
)
EXPORT = Kind("export", "an export of labels")
MODEL = Kind("model", "a model that travels")
DEMO = Kind("demo", "a run of the demo", written=("demo.json",))
VOLUMES = (VOLUME, CONVERSION, SYNTHETIC, LABELS)  # which may be overwritten where that is asked for
_KINDS = (*VOLUMES, PREDICTION, SEGMENTATION, OBJECTS, EVALUATION, TRAINING, DEMO, MODEL, EXPORT)
_TITLES = {kind.name: kind.title for kind in _KINDS}


def claim(
    url: str, kind: Kind, sources: Sequence[str] = (), *, over: Sequence[Kind] = (), given: Sequence[str] = ()
) -> bool:
    """Whether work of this kind was begun there. If not, marks the place as its own, or refuses it.

    `over` are kinds of work that it may replace: the caller removes their files. `given` are files that the user points
    the command to, which may lie there as the `sources` may.
    """
    url = normalise(url)
    if check_free(url, kind, sources, over=over, given=given):
        return True
    found = read_kinds(url) if kind.written else []
    marker = json.dumps({"software": "emsam_jax", "wrote": [*found, kind.name]}) + "\n"
    write_key(open_folder(url), MARKER, marker.encode())
    return False


def check_free(
    url: str, kind: Kind, sources: Sequence[str] = (), *, over: Sequence[Kind] = (), given: Sequence[str] = ()
) -> bool:
    """As `claim`, but writes nothing."""
    url = normalise(url)
    check_apart(url, sources, holding=bool(kind.written))
    found = read_kinds(url)
    if kind.name in found:
        return True
    names = _names_in(url)
    names -= {name for name in names if TORN.sub("", name) == MARKER != name}  # of a claim that was killed
    if any(each.written and each.name in found for each in _KINDS) and kind.written:
        _refuse(url, kind, names & set(kind.written), "a folder without these names")
    elif kind.written:
        places = [place for each in (*sources, *given) for place in places_of(each)]
        pointed_to = set().union(*(_on_the_way(url, place) for place in places))
        strangers = names - (pointed_to - set(kind.written))
        own = {n for n in strangers if n.startswith(".") or n.endswith(_OUTPUTS) or _is_output(url, n)}
        _refuse(url, kind, strangers - own, "an empty or a new folder")
    elif others := [name for name in found if name not in [each.name for each in over]]:
        raise UserError(
            f"{url}: expected an empty or a new folder or {kind.title}, but there is {_TITLES.get(others[0])} already; "
            "choose another place."
        )
    elif not found:
        _refuse(url, kind, names, "an empty or a new folder")
    return False


def read_kinds(url: str) -> list[str]:
    """Names of the kinds of work that were begun there."""
    content = read_key(open_folder(url), MARKER)
    try:
        found = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return []
    wrote = found.get("wrote") if isinstance(found, dict) and found.get("software") == "emsam_jax" else None
    return [name for name in wrote if name in _TITLES] if isinstance(wrote, list) else []


def _refuse(url: str, kind: Kind, strangers: set[str], expected: str) -> None:
    """If there are any."""
    if strangers:
        what = ", ".join(sorted(strangers)[:_SHOWN]) + f" and {len(strangers) - _SHOWN} more" * (
            len(strangers) > _SHOWN
        )
        raise UserError(
            f"{url}: expected {expected} or {kind.title}, found {what}, which it did not write; choose another place "
            "or move that away."
        )


def _on_the_way(url: str, place: str) -> set[str]:
    """Names in the folder by which one gets to what lies in it, or is linked from it."""
    outer, inner = ((each, each if is_remote(each) else os.path.realpath(each)) for each in (url, place))
    pairs = itertools.product(outer, inner)
    return {end.removeprefix(f"{start}/").partition("/")[0] for start, end in pairs if end.startswith(f"{start}/")}


def _is_output(url: str, name: str) -> bool:
    """Whether what this process prints goes to that file, as with `> runs/a/log.txt`."""
    with contextlib.suppress(OSError):
        return any(os.path.samestat(os.fstat(stream), Path(url, name).stat()) for stream in (1, 2))
    return False


def _names_in(url: str) -> set[str]:
    if is_remote(url):
        return {key.partition("/")[0] for key in list_keys(url)}
    path = Path(url)
    try:
        return {child.name for child in path.iterdir()}
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        file = next(each for each in (path, *path.parents) if each.exists())
        raise UserError(f"{path}: expected a folder or a new name, but {file} is a file; choose another.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be listed: {error.strerror}; choose another place.") from None
