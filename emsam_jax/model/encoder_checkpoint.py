"""Reads and writes SAM2's image encoder on disk: written by the conversion, loaded by shape and checksum."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.typing import DTypeLike

from emsam_jax.config import AttentionKernel
from emsam_jax.errors import UserError
from emsam_jax.model.hiera import HieraConfig
from emsam_jax.model.image_encoder import FACTS_FILE, PARAMS_FOLDER, SIZES, ImageEncoder
from emsam_jax.storage import write_whole

FORMAT = "emsam_jax image encoder 1"
_OURS = re.compile(  # and Orbax's
    rf"{re.escape(FACTS_FILE)}|{PARAMS_FOLDER}(\.orbax-checkpoint-tmp[^/]*)?/"
    r"(array_metadatas/.*|(.*/)?([0-9a-f]{32}|_[A-Z_]+|_sharding|manifest\.ocdbt|commit_success\.txt)(_?[0-9a-f]*\.__lock)?)"
)
Params = dict[str, Any]  # dotted name -> array
FlatParams = Mapping[str, jax.Array | np.ndarray]
M = TypeVar("M", bound=nnx.Module)


def abstract_encoder(config: HieraConfig, **options: Any) -> ImageEncoder:
    """Returns the module with shapes in place of parameters."""
    return nnx.eval_shape(lambda: ImageEncoder(config, rngs=nnx.Rngs(0), **options))


def flat_state(encoder: nnx.Module) -> dict[str, Any]:
    """Returns each parameter's variable by its dotted name."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(encoder, nnx.Param))}


def fill(encoder: M, params: FlatParams) -> M:
    """Returns the module with these parameters: each used once, none left over, every shape right."""
    graph, state = nnx.split(encoder)
    expected = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    if expected.keys() != params.keys():
        missing, unexpected = sorted(expected.keys() - params.keys()), sorted(params.keys() - expected.keys())
        raise UserError(f"The parameters do not fit this model: missing {missing[:5]}, unexpected {unexpected[:5]}.")
    filled = {}
    for name, (path, leaf) in expected.items():
        if leaf.shape != params[name].shape:
            raise UserError(f"Parameter {name}: expected shape {leaf.shape}, found {params[name].shape}.")
        filled[path] = leaf.replace(jnp.asarray(params[name], jnp.float32))
    return nnx.merge(graph, nnx.from_flat_state(filled))


@contextlib.contextmanager
def writing_image_encoder(path: str | os.PathLike[str], params: FlatParams, facts: dict[str, Any]) -> Iterator[Path]:
    """Writes the checkpoint next to `path`, yields it for checks, and moves it there when the block ends well.

    Only then what was at `path` is removed; a run that dies before leaves a folder that does not load. Folders with
    anything in them that is no part of an image encoder are refused.
    """
    path = Path(path).absolute()
    partial, replaced = path.with_name(path.name + ".partial"), path.with_name(path.name + ".replaced")
    for folder in (path, partial, replaced):
        refuse_strangers(folder)
    if replaced.exists() and not path.exists():  # a run died between the two renames
        replaced.rename(path)
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        # Trained floats hardly compress (8%), and compressing them takes as much memory again.
        alone = _alone()
        handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            checkpointer.save(partial / PARAMS_FOLDER, args=ocp.args.PyTreeSave(dict(params)))
        facts = {"format": FORMAT, **facts, "hash": content_hash(params)}
        write_whole(partial / FACTS_FILE, json.dumps(facts, indent=2) + "\n")
        yield partial
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def refuse_strangers(folder: Path) -> None:
    """Refuses files that this software would not have written there; a folder without them may be removed."""
    inside = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if not _is_folder(file))
    found = sorted(name for name in inside if not _OURS.fullmatch(name))
    if found or folder.is_symlink() or folder.is_file():
        what = ", ".join(found[:3]) or "a link or a file"
        raise UserError(f"{folder}: expected nothing, or an image encoder alone, found {what}; move that away.")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads `encoder.json`, or raises UserError about why this is no checkpoint of an image encoder."""
    file = Path(path) / FACTS_FILE
    if not Path(path).exists():
        raise UserError(f"No image encoder at {path}: there is no such folder. emsam convert makes one.")
    try:
        facts = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise UserError(
            f"{path} is no checkpoint of an image encoder: expected a readable {FACTS_FILE} in it. "
            "emsam convert makes one."
        )
    sizes = (*SIZES, "toy")
    if facts.get("format") != FORMAT or facts.get("size") not in sizes or not isinstance(facts.get("hash"), str):
        raise UserError(
            f"{file}: expected format {FORMAT!r}, one of the sizes {', '.join(SIZES)}, and a hash; found "
            f"{facts.get('format')!r}, {facts.get('size')!r}, {facts.get('hash')!r}. Convert the checkpoint again."
        )
    return facts


def load_image_encoder(
    path: str | os.PathLike[str],
    dtype: DTypeLike = jnp.float32,
    *,
    drop_path_rate: float = 0.0,
    remat: bool = False,
    attention: AttentionKernel = "xla",
) -> ImageEncoder:
    """Loads the encoder that `emsam convert` wrote, computing in `dtype` with float32 parameters."""
    facts = read_facts(path)
    encoder = abstract_encoder(
        SIZES[facts["size"]], dtype=dtype, drop_path_rate=drop_path_rate, remat=remat, attention=attention
    )
    return fill(encoder, read_params(path))


def read_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the parameters of a checkpoint, by their dotted names, and checks their hash."""
    expected = read_facts(path)["hash"]
    params = read_arrays(Path(path) / PARAMS_FOLDER)
    if content_hash(params) != expected:
        raise UserError(f"{path}: expected parameters of hash {expected[:12]}, found others: the files are damaged.")
    return params


def read_arrays(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a flat dictionary that Orbax wrote."""
    path: Any = Path(folder).absolute()  # which Orbax would have of a type of its own
    alone = _alone()
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with stored_arrays(path):
        names: Any = handler.metadata(path).tree
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
            return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


@contextlib.contextmanager
def stored_arrays(folder: Path) -> Iterator[None]:
    """Raises UserError for whatever Orbax and TensorStore raise inside about damaged files."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: expected arrays as Orbax writes them, found damaged files: {said}") from error


def content_hash(params: FlatParams) -> str:
    """Hashes names, types, shapes and values, in any order."""
    digest = hashlib.sha256()
    for name in sorted(params):
        values = np.ascontiguousarray(params[name])
        digest.update(f"{name} {values.shape} {values.dtype};".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns Orbax's options that wait for no other process."""
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"alone{this}"
    )
