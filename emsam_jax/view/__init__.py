"""Pictures and pages that show scores and where they come from."""

from emsam_jax.view.exhibit import Exhibit
from emsam_jax.view.illustrations import Illustrations, illustrate
from emsam_jax.view.page import render

__all__ = ["Exhibit", "Illustrations", "illustrate", "render"]
