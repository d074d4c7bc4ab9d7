"""What is said of time that was lost."""

from pathlib import Path

import pytest

from cram.errors import CramError
from cram.files.sealed import write_checksums
from cram.reporting.summary import _lost_time, _result_lines


@pytest.mark.parametrize(
    ("stalls", "asleep", "lines"),
    [
        ((0, 0.0, 0.0), 0.5, []),
        ((0, 0.0, 0.0), None, []),
        ((1, 10.0, 10.0), 0.0, [("stalled", "once, for 0:10: charged, but not to the updates")]),
        (
            (3, 75.0, 60.0), 3600.0,
            [("stalled", "3 times, for 1:15, the longest 1:00: charged, but not to the updates"),
             ("asleep", "1:00:00, not charged")],
        ),
    ],
)  # fmt: skip
def test_stalls_and_sleep_are_in_the_summary_where_there_were_any(
    stalls: tuple[int, float, float], asleep: float | None, lines: list[tuple[str, str]]
) -> None:
    figures = dict(zip(("number", "seconds", "longest_seconds"), stalls, strict=True))
    assert _lost_time({"stalls": figures, "time": {"not_charged": {"asleep": asleep}}}) == lines


def test_an_export_that_was_edited_is_not_used_for_examples(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "tokenizer.json").write_text("{}")
    write_checksums(tmp_path / "export", ["tokenizer.json"])
    (tmp_path / "export" / "tokenizer.json").unlink()
    with pytest.raises(
        CramError, match=r"tokenizer.json: missing. Remove the folder: the same command makes it again."
    ):
        _result_lines(tmp_path, {"model": {"kind": "encoder"}, "export": "export/"})
