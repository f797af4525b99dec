"""Keys in the viewer that append to edits.jsonl, and the edits in force drawn as annotations."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import neuroglancer as ng

from emsam_jax.errors import UserError
from emsam_jax.segmentation import Edit, append_edit, in_force, new_edit, read_edits
from emsam_jax.storage import is_remote
from emsam_jax.view.colours import Rgb
from emsam_jax.view.live.arrangement import line, places_layer, point
from emsam_jax.volumes import Sizes

KEYS = {"join": "j", "part": "p", "done": "d", "undo": "u"}
EDITS = "edits"  # the layer
_COLOURS: dict[str, Rgb] = {"join": (70, 200, 90), "part": (235, 60, 60), "done": (90, 170, 255)}
_HALF: Rgb = (255, 255, 255)  # of a place whose partner is not there yet
_STATUS = "emsam"


class Corrections:
    """Of one file, which other programs may append to as well: it is read again before anything is shown."""

    def __init__(self, viewer: ng.Viewer, path: str, author: str):
        if is_remote(path) or not Path(path).absolute().parent.is_dir():
            raise UserError(f"--edits: expected a file in a folder of this machine, found {path}.")
        self._viewer, self._path, self._author = viewer, path, author
        self._half: tuple[str, Sizes] | None = None  # the first place of a pair
        self._read()
        handlers: dict[str, Callable[[Any], None]] = {
            "join": lambda state: self._pair("join", state),
            "part": lambda state: self._pair("part", state),
            "done": self._done,
            "undo": self._undo,
        }
        for name, handler in handlers.items():
            viewer.actions.add(f"emsam-{name}", handler)
        with viewer.config_state.txn() as config:
            for name, key in KEYS.items():
                config.input_event_bindings.viewer[f"key{key}"] = f"emsam-{name}"
        self._show("Edits: j joins two places, p parts them, d says that an object is done, u undoes.")

    def _pair(self, kind: str, state: Any) -> None:
        place = self._under(state)
        if place is None:
            return
        if self._half is None or self._half[0] != kind:
            self._half = kind, place
            told = f"{kind}: now the other place, and {KEYS[kind]} again ({KEYS['undo']} forgets the first)"
            self._show(told, state.viewer_state)
            return
        first, self._half = self._half[1], None
        self._append(new_edit(kind, [first, place], self._author), state.viewer_state)

    def _done(self, state: Any) -> None:
        place, self._half = self._under(state), None
        if place is not None:
            self._append(new_edit("done", [place], self._author), state.viewer_state)

    def _undo(self, state: Any) -> None:
        """Forgets the first place of a pair, or undoes the author's last edit that is in force."""
        if self._half is not None:
            self._half = None
            self._show("forgotten", state.viewer_state)
            return
        own = [edit for edit in in_force(self._read()) if edit.author == self._author]
        if own:
            self._append(new_edit("undo", [], self._author, undoes=own[-1].id), state.viewer_state)
        else:
            self._show(f"undo: {self._path} has no edit of {self._author}", state.viewer_state)

    def _append(self, edit: Edit, seen: Any) -> None:
        try:
            append_edit(self._path, edit)
        except (UserError, OSError) as problem:
            self._show(f"not written: {problem}", seen)
            return
        self._show(f"{edit.kind}: written to {self._path}, {len(in_force(self._read()))} edits in force", seen)

    def _read(self) -> tuple[Edit, ...]:
        return read_edits(self._path) if Path(self._path).exists() else ()

    def _under(self, state: Any) -> Sizes | None:
        """The place under the pointer, in nm."""
        voxels = state.mouse_position
        if voxels is None or len(voxels) != 3:
            self._show("no voxel is under the pointer", state.viewer_state)
            return None
        x, y, z = (
            float(at * size * 1e9) for at, size in zip(voxels, self._viewer.state.dimensions.scales, strict=True)
        )
        return z, y, x

    def _show(self, message: str, seen: Any = None) -> None:
        """Shows the edits in force and a message, over what the browser just showed."""
        annotations = [_drawn(edit) for edit in in_force(self._read())]
        if self._half is not None:
            kind, place = self._half
            annotations.append(point("half", place, f"{kind}: the first of two places", _HALF))
        shown = copy.deepcopy(seen or self._viewer.state)
        if EDITS in shown.layers:
            shown.layers[EDITS].annotations = annotations
        else:
            shown.layers.append(EDITS, places_layer(annotations))
        self._viewer.set_state(shown)
        with self._viewer.config_state.txn() as config:
            config.status_messages[_STATUS] = message


def _drawn(edit: Edit) -> ng.Annotation:
    text, colour = f"{edit.kind}, {edit.author}, {edit.time}", _COLOURS[edit.kind]
    if edit.kind == "done":
        return point(edit.id, edit.points_zyx_nm[0], text, colour)
    return line(edit.id, edit.points_zyx_nm, text, colour)
