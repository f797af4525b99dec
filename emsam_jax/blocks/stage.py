"""What is done to each block of a volume, apart from who does it and in which order."""

from typing import Any, Protocol, runtime_checkable

from emsam_jax.blocks.ledger import Entry
from emsam_jax.blocks.plan import Block


@runtime_checkable
class Stage(Protocol):
    """A picklable object, such as a frozen dataclass: it travels to the workers."""

    @property
    def name(self) -> str:
        """The ledger's stage."""
        ...

    def identity(self) -> dict[str, Any]:
        """Flat JSON facts that its result depends on."""
        ...

    def run(self, block: Block) -> str:
        """Reads, computes, writes until it is durable; returns the checksum for the ledger. May be repeated."""
        ...

    def is_intact(self, block: Block, entry: Entry) -> bool:
        """Whether what is stored is what the entry says."""
        ...
