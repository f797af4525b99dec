"""Stage 6: fragments, relabelled."""

import dataclasses
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry, is_intact, write_block
from emsam_jax.segmentation.blockwise.ids import index_ids
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.tables import look_up


@dataclasses.dataclass(frozen=True)
class Labels:
    job: Job
    name: str = "labels"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_labels()

    def run(self, block: Block) -> str:
        names, _, places = index_ids(self.job.read_fragments(block.box))
        labels = np.concatenate([np.zeros(1, np.uint64), look_up(self.job.labels.url, names)])[places]
        return write_block(self.job.open_labels(), self.job.plan.output_box(block), labels)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return is_intact(self.job.open_labels(), self.job.plan.output_box(block), entry.checksum)
