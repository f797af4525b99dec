"""Where this software may write: an empty place, or one that it began itself. What others put there is left alone.

A folder that is claimed gets `emsam_jax.json`, before anything else: which kinds of work lie there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from emsam_jax.volumes.apart import check_apart
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import is_remote, normalise, open_folder, read_key, write_key
from emsam_jax.volumes.removal import list_keys

UNFINISHED = "unfinished.json"  # in a volume that is written at once, until it is whole
_MARKER = "emsam_jax.json"
_SHOWN = 3  # names in a message


class Kind(NamedTuple):
    """One kind of work: what its folder holds."""

    name: str  # in the marker
    title: str  # in a sentence
    files: str = r"(?!)"  # a pattern of the keys that may be deleted; by default none
    beside: tuple[str, ...] = ()  # names that it writes among others' files; by default the folder is its own


_LEDGER = r"ledger/(running\.json|[\w-]+/(identity\.json|(done|failed)/\d+-\d+-\d+))"
_SIZE = r"[\d.e+-]+"
_VOLUME = rf"unfinished\.json|zarr\.json|info|\d+/zarr\.json|\d+/c(/\d+)+|{_SIZE}_{_SIZE}_{_SIZE}/[0-9a-f]+\.shard"
VOLUME = Kind("volume", "a volume", _VOLUME)
CONVERSION = Kind("conversion", "a conversion by emsam_jax.volumes.ingest", f"{_VOLUME}|{_LEDGER}")
SYNTHETIC = Kind("synthetic", "a synthetic volume", _VOLUME)
LABELS = Kind("labels", "labels of eval.py", _VOLUME)
PREDICTION = Kind("prediction", "a prediction")
SEGMENTATION = Kind("segmentation", "a run of segment.py")
EVALUATION = Kind("evaluation", "results of eval.py", beside=("scores.json", "report.html", "postprocess.json"))
TRAINING = Kind(
    "training",
    "a run of train.py",
    beside=(
        *("running.json", "config.json", "config.json.partial", "metrics.jsonl", "metrics.jsonl.partial", "curves.png"),
        *("checkpoints", "encoder", "encoder.partial", "encoder.replaced", "samples", "tensorboard", "validating"),
    ),
)
DEMO = Kind("demo", "a run of the demo", beside=("demo.json",))
VOLUMES = (VOLUME, CONVERSION, SYNTHETIC, LABELS)  # which may be overwritten where that is asked for
_KINDS = (*VOLUMES, PREDICTION, SEGMENTATION, EVALUATION, TRAINING, DEMO)
_TITLES = {kind.name: kind.title for kind in _KINDS}


def claim(url: str, kind: Kind, sources: Sequence[str] = (), *, over: Sequence[Kind] = ()) -> bool:
    """Whether work of this kind was begun there. If not, marks the place as its own, or refuses it.

    `over` are kinds of work that it may replace: the caller removes their files.
    """
    url = normalise(url)
    if check_free(url, kind, sources, over=over):
        return True
    found = read_kinds(url) if kind.beside else []
    marker = json.dumps({"software": "emsam_jax", "wrote": [*found, kind.name]}) + "\n"
    write_key(open_folder(url), _MARKER, marker.encode())
    return False


def check_free(url: str, kind: Kind, sources: Sequence[str] = (), *, over: Sequence[Kind] = ()) -> bool:
    """As `claim`, but writes nothing."""
    url = normalise(url)
    check_apart(url, sources, holding=bool(kind.beside))
    found = read_kinds(url)
    if kind.name in found:
        return True
    others = [name for name in found if name not in [each.name for each in over]]
    if others and not kind.beside:
        raise VolumeError(
            f"{url}: expected an empty or a new folder or {kind.title}, but there is {_TITLES.get(others[0])} already; "
            "choose another place."
        )
    if kind.beside or not found:
        _refuse_strangers(url, kind)
    return False


def read_kinds(url: str) -> list[str]:
    """Names of the kinds of work that were begun there."""
    content = read_key(open_folder(url), _MARKER)
    try:
        found = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return []
    wrote = found.get("wrote") if isinstance(found, dict) and found.get("software") == "emsam_jax" else None
    return [name for name in wrote if name in _TITLES] if isinstance(wrote, list) else []


def _refuse_strangers(url: str, kind: Kind) -> None:
    """Any file in what is to be a folder of its own; elsewhere those whose names it needs."""
    names = {key.partition("/")[0] for key in list_keys(url)} if is_remote(url) else _names_in(Path(url))
    found = sorted(names & set(kind.beside) if kind.beside else names)
    if found:
        shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        wanted = "a folder without these names" if kind.beside else "an empty or a new folder"
        raise VolumeError(
            f"{url}: expected {wanted} or {kind.title}, found {shown}, which it did not write; choose another place."
        )


def _names_in(path: Path) -> set[str]:
    try:
        return {child.name for child in path.iterdir()}
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        file = next(each for each in (path, *path.parents) if each.exists())
        raise VolumeError(f"{path}: expected a folder or a new name, but {file} is a file; choose another.") from None
    except OSError as error:
        raise VolumeError(f"{path} cannot be listed: {error.strerror}; choose another place.") from None
