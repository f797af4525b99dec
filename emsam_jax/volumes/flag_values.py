"""What the command lines of this room have in common."""

from typing import Any

from emsam_jax.errors import UserError


def three(text: list[str], kind: type) -> Any:
    """Three numbers of a flag, or None."""
    try:
        values = tuple(kind(part) for part in text)
    except ValueError:
        values = ()
    if text and len(values) != 3:
        raise UserError(f"Expected three numbers z,y,x; found {','.join(text)!r}.")
    return values or None


def whole_numbers(text: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text if part)
    except ValueError:
        raise UserError(f"Expected whole numbers with commas between, found {','.join(text)!r}.") from None
