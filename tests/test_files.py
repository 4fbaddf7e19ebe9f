"""Files that are replaced: what can be written is known before, and rights hold all the time."""

import os
import stat
from pathlib import Path

import pytest

from stt_lib.files import is_writable, write_whole, written_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_can_be_written_where_it_points_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, target = tmp_path / "links" / "summary.json", tmp_path / "reports" / "summary.json"
    link.parent.mkdir()
    link.symlink_to(target)
    assert not is_writable(link)
    target.parent.mkdir()
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) == target.parent)
    assert is_writable(link)
    write_whole(link, "written")
    assert target.read_text() == "written"


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "diary.txt"
    file.write_text("old")
    file.chmod(0o600)
    with written_whole(file) as stream:
        stream.write(b"new")
        [draft] = set(tmp_path.iterdir()) - {file}
        assert mode(draft) == 0o600
    assert (file.read_text(), mode(file)) == ("new", 0o600)


def test_a_file_that_nobody_may_write_is_replaced_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "diary.txt"
    file.write_text("old")
    file.chmod(0o400)
    write_whole(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o400)
