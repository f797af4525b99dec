"""Reads a PyTorch checkpoint or a safetensors file without running anything that it carries."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from emsam_jax.errors import UserError

if TYPE_CHECKING:
    import torch


def import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            "Converting reads the checkpoint with PyTorch, which is not installed: pip install 'emsam-jax[convert]'."
        ) from None
    return torch


def read_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """Reads tensors by name, of the official layout {"model": ...}, a bare state dict, or safetensors."""
    torch = import_torch()
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}: there is no such file. --download=NAME fetches an official one.")
    contents = _read_safetensors(path) if _is_safetensors(path) else _read_pickled(path)
    tensors = contents.get("model", contents) if isinstance(contents, Mapping) else contents
    if not isinstance(tensors, Mapping) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise UserError(
            f'{path}: expected {{"model": state dict}} or a state dict of tensors; found {_describe(tensors)}. '
            "Save the model's state_dict()."
        )
    return {str(name): tensor for name, tensor in tensors.items()}


def _is_safetensors(path: Path) -> bool:
    """Recognises eight bytes of header length, then JSON."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, "torch.Tensor"]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise UserError(_unreadable(path, str(error))) from None


def _read_pickled(path: Path) -> Any:
    torch = import_torch()
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path):
                raise UserError(_unreadable(path, "its end is missing"))
        _refuse_bomb(path)
        # Not mapped from the file: a tensor that was converted can be let go, pages of a mapping cannot.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on the age of a file's format
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            is_pickle = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        if is_pickle and "truncated" not in str(error):
            raise UserError(
                f"{path} asks to run code when it is read, or holds other things than tensors; nothing of it was run. "
                "Take an official SAM2 or SAM2.1 checkpoint."
            ) from None
        raise UserError(_unreadable(path, "it is no PyTorch checkpoint")) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(_unreadable(path, str(error).splitlines()[0] if str(error) else "it ends early")) from None


def _refuse_bomb(path: Path) -> None:
    """Refuses a file that unpacks to more than its size: PyTorch stores its tensors uncompressed."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > 2 * path.stat().st_size:
        raise UserError(
            f"{path}: expected tensors as PyTorch stores them, uncompressed; found {path.stat().st_size} bytes that "
            f"unpack to {unpacked}. Take an official SAM2 or SAM2.1 checkpoint."
        )


def _unreadable(path: Path, why: str) -> str:
    return (
        f"{path} ({path.stat().st_size} bytes) cannot be read ({why}): expected a whole .pt or .safetensors file. "
        "It may have been cut off while it was downloaded: fetch it again."
    )


def _describe(contents: Any) -> str:
    if isinstance(contents, Mapping):
        return f"a dictionary with {', '.join(map(repr, list(contents)[:5])) or 'nothing'}"
    return f"a {type(contents).__name__}"


def to_jax(tensor: "torch.Tensor", order: tuple[int, ...], dtype: str) -> jax.Array:
    """Copies the tensor with its axes in this order."""
    return jnp.array(np.ascontiguousarray(tensor.detach().float().permute(order).numpy()), dtype)
