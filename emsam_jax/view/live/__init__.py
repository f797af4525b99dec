"""A run or volumes in neuroglancer, in the browser: layers, places to jump to, and keys for corrections."""

from emsam_jax.view.live.links import link_to
from emsam_jax.view.live.run_outputs import scene_of
from emsam_jax.view.live.scene import Scene
from emsam_jax.view.live.served import Levels, open_levels
from emsam_jax.view.live.session import serve

__all__ = ["Levels", "Scene", "link_to", "open_levels", "scene_of", "serve"]
