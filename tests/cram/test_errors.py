import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.errors import CramError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("run=x: missing.\nTrain it first.", "run=x: missing.\nTrain it first."),
        ("run=\x1b[31m\u202e\udcff\x00: missing.", r"run=\x1b[31m\u202e\udcff\x00: missing."),
        ("seed=1\n2\n3 cannot be read.", r"seed=1\n2\n3 cannot be read."),
        ("data.source=日本é: missing.", "data.source=日本é: missing."),
    ],
)
def test_a_message_shows_what_it_quotes_without_writing_it_to_the_terminal(message: str, shown: str) -> None:
    assert str(CramError(message)) == shown


def test_a_long_value_is_cut_in_the_middle() -> None:
    message = str(CramError(f"seed={'9' * 5000} cannot be read: give a whole number."))
    assert message.startswith("seed=99999")
    assert message.endswith("9 cannot be read: give a whole number.")
    assert len(message) == 1000
    assert str(CramError(message)) == message


@given(st.text(st.characters(exclude_categories=())), st.text())
def test_a_message_is_one_or_two_lines_that_can_be_printed(value: str, other: str) -> None:
    message = str(CramError(f"seed={value}: {other}"))
    assert all(line.isprintable() for line in message.split("\n"))
    assert message.count("\n") <= 1
    assert str(CramError(message)) == message
    assert str(pickle.loads(pickle.dumps(CramError(message)))) == message
