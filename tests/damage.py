"""Damage to what others wrote: values that no file should have, and files changed at random."""

import json
import random
from typing import Any

EVIL: list[Any] = [
    *(None, True, -1, 0, 1, 2, 3.5, 1e400, float("nan"), -(10**6), 10**6, 2**31, 2**70, 10**400),
    *("", "words", "../../..", "\x00", "file:///etc/passwd", "evil", "é" * 300, "1", "zyx"),
    *([], {}, [[]], [0], [0, 0, 0], [-1, 2, 3], ["a", "b", "c"], [1, 2], [10**6] * 3, [2**62] * 3, [None] * 3, [{}]),
    *({"name": 3}, {"a": {"b": [1]}}, [{"name": 1}, {"name": 2}, {"name": 3}], [float("nan")] * 3),
]


def damage_json(random_: random.Random, content: bytes) -> bytes:
    """One value, wherever it stands, becomes another, or is gone; now and then the text itself is damaged."""
    if random_.random() < 0.15:
        return damage_bytes(random_, content)
    whole = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            visit(value[key])

    visit(whole)
    if not places or random_.random() < 0.05:
        return json.dumps(random_.choice(EVIL)).encode()
    holder, key = random_.choice(places)
    if random_.random() < 0.15:
        del holder[key]
    else:
        holder[key] = random_.choice(EVIL)
    return json.dumps(whole).encode()


def damage_bytes(random_: random.Random, content: bytes) -> bytes:
    """Some bytes of the first and last kilobyte, where headers lie; or the end is missing."""
    data = bytearray(content)
    if random_.random() < 0.1:
        return bytes(data[: random_.randrange(len(data))])
    for _ in range(random_.choice((1, 1, 2, 8))):
        near = random_.randrange(min(1024, len(data)))
        at = near if random_.random() < 0.7 else len(data) - 1 - near
        data[at] = random_.choice((0, 255, 128, random_.randrange(256), data[at] ^ 1 << random_.randrange(8)))
    return bytes(data)
