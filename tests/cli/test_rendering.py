import sys

import pytest

from stt_lib.cli.rendering import table

ROWS = [("id", "name"), ("0123456789", "a long name of a file")]


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    assert table(ROWS).splitlines() == ["id          name", "0123456789  a long …"]


def test_a_program_reads_all_of_it() -> None:
    assert table(ROWS).endswith("a long name of a file")
