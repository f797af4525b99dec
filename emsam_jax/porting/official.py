"""The official PyTorch encoder, to compare with."""

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from emsam_jax.model.image_encoder import EncoderError
from emsam_jax.porting.torch_file import import_torch

if TYPE_CHECKING:
    import torch

_CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
VERSIONS = ("sam2", "sam2.1")


def build_encoder(size: str, version: str = "sam2.1") -> "torch.nn.Module":
    """SAM2's `ImageEncoder`, by its own configuration file, in evaluation mode, with random weights."""
    return _instantiate(size, version, "image_encoder").eval()


def build_model(size: str, version: str = "sam2.1") -> "torch.nn.Module":
    """The whole of SAM2, as its checkpoints hold it."""
    return _instantiate(size, version, None).eval()


def randomise_position_embeddings(encoder: Any, std: float = 0.5) -> None:
    """A fresh model has zeros there, which would hide every error of resizing and tiling them."""
    torch = import_torch()
    with torch.no_grad():
        encoder.trunk.pos_embed.normal_(std=std)
        encoder.trunk.pos_embed_window.normal_(std=std)


def run_encoder(encoder: Any, images: np.ndarray) -> list[np.ndarray]:
    """Images [n, y, x, 3] to the four stages and the three levels of the pyramid, each [n, h, w, c]."""
    torch = import_torch()
    with torch.inference_mode():
        stages = encoder.trunk(torch.from_numpy(images).permute(0, 3, 1, 2))
        levels = encoder.neck(stages)[0][: -encoder.scalp]
    return [feature.permute(0, 2, 3, 1).numpy() for feature in (*stages, *levels)]


def _instantiate(size: str, version: str, part: str | None) -> Any:
    try:
        import sam2  # noqa: F401 (tells hydra where its configurations are)
        from hydra import compose
        from hydra.utils import instantiate
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"Comparing with the official encoder needs the sam2 package ({error.name} is missing): "
            "pip install 'emsam-jax[convert]'."
        ) from None
    config = compose(config_name=f"configs/{version}/{version}_hiera_{_CONFIGS[size]}.yaml").model
    with contextlib.redirect_stdout(None):
        return instantiate(config[part] if part else config, _recursive_=True)
