"""Pictures and pages that show scores and where they come from."""

from emsam_jax.view.colours import colours_of
from emsam_jax.view.exhibit import Exhibit
from emsam_jax.view.page import Illustrations, illustrate, render
from emsam_jax.view.standings import find_standings

__all__ = ["Exhibit", "Illustrations", "colours_of", "find_standings", "illustrate", "render"]
