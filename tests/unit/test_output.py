"""What the command line prints, and what it makes of errors."""

from __future__ import annotations

import errno
import json
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from slipway.cli.output import ago, fail, print_table, printable, require_writable, write_text
from slipway.cli.prefect_session import ENVIRONMENT, prefect_session
from slipway.errors import ConfigurationError, StoreError, UnavailableError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "60 min ago"), (3600, "1 h ago"), (86400, "1 d ago")],
)
def test_spans_for_people(seconds, text):
    assert ago(NOW - timedelta(seconds=seconds), NOW) == text


@given(st.text())
def test_printable_text_steers_no_terminal_and_can_be_encoded(text):
    shown = printable(text)
    shown.encode()
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_printable_text_stays_readable():
    assert printable("ünïcode 😀, [brackets]\nand lines") == "ünïcode 😀, [brackets]\nand lines"
    assert printable("\x1b[31mred\x07\ud83d") == "\\x1b[31mred\\x07\\ud83d"


def test_an_error_is_a_message_a_fix_and_a_code(capsys):
    assert fail(ConfigurationError("no [such] thing.", fix="Write [another].")) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: no [such] thing.\nfix:   Write [another].\n"
    assert printed.out == ""


def test_an_error_without_a_fix_has_no_such_line(capsys):
    assert fail(StoreError("gone.")) == 3
    assert capsys.readouterr().err == "error: gone.\n"


def test_as_json_the_document_is_alone_on_stdout(capsys):
    assert fail(UnavailableError("down.", fix="Wait."), as_json=True) == 3
    assert json.loads(capsys.readouterr().out) == {
        "error": "UnavailableError",
        "message": "down.",
        "fix": "Wait.",
        "exit_code": 3,
    }


def test_a_defect_is_owned_up_to_with_its_traceback(capsys):
    """What nobody thought of must be reportable, and is neither a yes nor a no."""
    with pytest.raises(KeyError) as caught:
        raise KeyError("oops")
    assert fail(caught.value) == 3
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "KeyError: 'oops'" in printed
    assert "defect in Slipway" in printed


@pytest.mark.parametrize(
    "error", [ConfigurationError("bad pb_s3cr3t-t0ken-value."), ValueError("pb_s3cr3t-t0ken-value")]
)
def test_secrets_of_the_environment_are_in_no_message(capsys, monkeypatch, error):
    monkeypatch.setenv("PREDIBASE_API_TOKEN", "pb_s3cr3t-t0ken-value")
    fail(error, as_json=True)
    printed = capsys.readouterr()
    assert "s3cr3t" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x/y"), 2, "x/y: No such file or directory."),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "The output cannot be written: No space left on device."),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 3, "x cannot be written: No space left on device."),
    ],
)
def test_errors_of_the_operating_system_have_a_fix_too(capsys, error, code, message):
    assert fail(error) == code
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {message}"
    assert second.startswith("fix: ")


def test_table_cells_are_text_and_no_markup(capsys):
    print_table(("a", "b"), [("[red]x[/]", "pip install 'slipway[sandbox]'"), ("\x1b[1m", "")], empty="none")
    printed = capsys.readouterr().out
    assert "[red]x[/]" in printed
    assert "slipway[sandbox]" in printed
    assert "\x1b" not in printed
    print_table(("a",), [], empty="[nothing]")
    assert capsys.readouterr().out == "[nothing]\n"


SENTENCE = "a sentence of more columns than it would have beside the others"


@pytest.mark.parametrize(("width", "beside"), [(160 - len(SENTENCE) - 2, True), (115, True), (117, False)])
def test_sentences_stand_below_their_rows_where_they_have_no_room(capsys, width, beside):
    """A table that folds them into a dozen letters is ten lines high for each row."""
    print_table(("id", "why"), [("x" * width, SENTENCE), ("[y]", Text(SENTENCE, "red"))], empty="none")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == (["id", "why"] if beside else ["id"])
    assert (f"    {SENTENCE}" in [line.rstrip() for line in printed]) is not beside
    assert sum("[y]" in line for line in printed) == 1


def test_places_that_can_be_written_are_accepted_and_not_touched(tmp_path):
    require_writable(None, tmp_path / "new.xml", tmp_path / "a" / "b" / "new.xml")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is a directory"):
        require_writable(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        require_writable(tmp_path / "file" / "x.xml")


def test_writing_makes_directories_and_says_what_failed(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "ü")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "ü"
    with pytest.raises(StoreError, match=r"b\.txt/c cannot be written") as caught:
        write_text(tmp_path / "a" / "b.txt" / "c", "")
    assert caught.value.fix


@pytest.fixture
def without_prefect(monkeypatch):
    """No server is named, and what the session sets for this process is taken back."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("without_prefect")
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (httpx.ReadError("reset"), "failed meanwhile (ReadError)"),
        (RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server."), "temporary"),
    ],
)
async def test_a_prefect_server_that_goes_away_is_no_defect_of_ours(error, says):
    with pytest.raises(UnavailableError) as caught, prefect_session():
        raise error
    assert says in caught.value.message
    assert "prefect server start" in caught.value.fix


@pytest.mark.usefixtures("without_prefect")
async def test_other_errors_of_a_release_pass_through():
    with pytest.raises(RuntimeError, match="something else"), prefect_session():
        raise RuntimeError("something else")
