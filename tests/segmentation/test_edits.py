"""Edits in their file: what another tool writes is read, and what a writer left unfinished costs that line alone."""

import fcntl
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emsam_jax.errors import UserError
from emsam_jax.segmentation import append_edit, in_force, new_edit, read_edits
from tests.programs import environment

# As another tool writes it: no newline at the end, fields in another order, a field of its own, UTC as Z.
JOIN = {"kind": "join", "id": "0123456789ab", "points_zyx_nm": [[0, 8, 16.5], [40, 8, 16]], "author": "ada"}
LINE = json.dumps(JOIN | {"time": "2026-11-22T03:40:00Z", "note": "by hand"})


def test_edits_of_another_tool_are_read_and_appended_to(tmp_path: Path):
    path = tmp_path / "edits.jsonl"
    path.write_text(LINE)
    (first,) = read_edits(path)
    assert (first.id, first.kind, first.points_zyx_nm) == ("0123456789ab", "join", ((0, 8, 16.5), (40, 8, 16)))
    part = new_edit("part", [(1, 2, 3), (4, 5, 6)], "ada")
    for edit in (part, new_edit("done", [(7, 8, 9)], "bob")):
        append_edit(path, edit)
    assert read_edits(path)[:2] == (first, part)
    assert path.read_text().startswith(f"{LINE}\n{part.to_json()}\n")
    append_edit(path, undo := new_edit("undo", [], "ada", undoes=part.id))
    assert [edit.kind for edit in in_force(read_edits(path))] == ["join", "done"]
    append_edit(path, new_edit("undo", [], "ada", undoes=undo.id))
    assert [edit.kind for edit in in_force(read_edits(path))] == ["join", "part", "done"]


def test_a_writer_killed_at_any_byte_costs_its_own_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, new = tmp_path / "edits.jsonl", new_edit("done", [(1, 2, 3)], "ada")
    for length in range(1, len(LINE), 7):
        path.write_text(f"{LINE}\n{LINE.replace('0123456789ab', 'ffffffffffff')[:length]}")
        assert [edit.id for edit in read_edits(path)] == ["0123456789ab"]
        assert "was not written to its end and is skipped" in capsys.readouterr().err
        append_edit(path, new)
        assert [edit.id for edit in read_edits(path)] == ["0123456789ab", new.id]
        assert capsys.readouterr().err == ""


def test_a_writer_waits_for_another(tmp_path: Path):
    path = tmp_path / "edits.jsonl"
    with path.open("ab") as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        written = pool.submit(append_edit, path, new_edit("done", [(1, 2, 3)], "ada"))
        with pytest.raises(TimeoutError):
            written.result(0.2)
        assert path.read_text() == ""
        fcntl.flock(other, fcntl.LOCK_UN)
        written.result()
    assert len(read_edits(path)) == 1


def test_writers_at_once_lose_nothing(tmp_path: Path):
    code = (
        "import sys; from emsam_jax.segmentation import append_edit, new_edit\n"
        "for place in range(40): append_edit(sys.argv[1], new_edit('done', [(place, 0, 0)], sys.argv[2]))"
    )
    path = tmp_path / "edits.jsonl"
    programs = [[sys.executable, "-c", code, str(path), author] for author in ("ada", "bob")]
    writers = [subprocess.Popen(program, env=environment()) for program in programs]
    assert [writer.wait() for writer in writers] == [0, 0]
    edits = read_edits(path)
    for author in ("ada", "bob"):
        places = [edit.points_zyx_nm[0][0] for edit in edits if edit.author == author]
        assert places == list(range(40))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": "x"}, "line 2: Expected an edit's id of 12 hexadecimal digits, found 'x'"),
        ({"kind": "merge"}, "expected one of join, part, done, undo as its kind, found 'merge'"),
        ({"points_zyx_nm": [[0, 0, 0]]}, "expected 2 points of a join, found 1"),
        ({"points_zyx_nm": [[0, 0, 0], [0, 0]]}, r"points_zyx_nm\[1\]: expected 3 numbers"),
        ({"points_zyx_nm": [[0, 0, 0], [0, 0, float("nan")]]}, "expected points of three finite numbers"),
        ({"time": "2026-11-22T03:40:00"}, "expected a time with its zone"),
        ({"author": None}, "author: expected text, found None"),
        ({"id": "0123456789ab"}, "expected an id of its own for each edit, found 0123456789ab twice"),
        ({"kind": "undo", "points_zyx_nm": [], "undoes": "a" * 12}, "undoes aaaaaaaaaaaa, but no edit before it"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_a_sentence(change: dict, told: str, tmp_path: Path):
    path = tmp_path / "edits.jsonl"
    second = {**json.loads(LINE), "id": "ffffffffffff", **change}
    path.write_text(f"{LINE}\n{json.dumps(second)}\n")
    with pytest.raises(UserError, match=told) as found:
        read_edits(path)
    assert str(found.value).startswith(f"{path}, line 2")
    path.write_text("# notes\n")
    with pytest.raises(UserError, match="line 1: expected JSON"):
        append_edit(path, new_edit("done", [(0, 0, 0)], "ada"))
    assert path.read_text() == "# notes\n"
