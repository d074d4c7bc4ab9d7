import pytest

from cram.data.inspect.rows import RowDocument, RowText, spread_rows


@pytest.mark.parametrize(
    ("rows", "chosen"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (60, [10, 30, 50]), (61, [10, 30, 50])]
)
def test_rows_are_spread(rows: int, chosen: list[int]) -> None:
    assert spread_rows(rows) == chosen


def test_the_tokens_of_a_row_are_those_of_its_documents() -> None:
    documents = [RowDocument("text", "text", "", "", tokens, True, True) for tokens in (3, 4)]
    assert RowText(0, documents, padding=9).tokens == 7
