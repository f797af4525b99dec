"""All pictures of one volume."""

import dataclasses

from emsam_jax.view.exhibit import Exhibit
from emsam_jax.view.objects import WorstObject, draw_worst
from emsam_jax.view.pairing import pair
from emsam_jax.view.sections import Section, draw_sections


@dataclasses.dataclass(frozen=True)
class Illustrations:
    sections: list[Section]
    worst: list[WorstObject]


def illustrate(exhibit: Exhibit, sections: int = 3, worst: int = 10) -> Illustrations:
    pairing = pair(exhibit.labels, exhibit.truth, exhibit.labelled)
    return Illustrations(draw_sections(exhibit, pairing, sections), draw_worst(exhibit, worst))
