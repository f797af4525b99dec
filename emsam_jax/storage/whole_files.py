"""Files written whole, and a hash that tells two settings apart."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from emsam_jax.errors import UserError


def write_whole(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part."""
    begun = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            begun = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(begun).chmod(0o644)
        Path(begun).replace(path)
    except OSError as error:
        if begun:
            Path(begun).unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def hash_of(settings: Any) -> str:
    """The same for the same JSON, whatever the order of its fields."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
