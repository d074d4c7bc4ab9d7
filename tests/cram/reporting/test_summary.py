"""The summary's lines on lost time and on the exported folder."""

from pathlib import Path

import pytest

from cram.errors import CramError
from cram.files.sealed import write_checksums
from cram.reporting.summary import lost_time_lines, result_lines

STALLED_ONCE = ("stalled", "once, for 0:10: charged, but not to the updates")
STALLED_OFTEN = ("stalled", "3 times, for 1:15, the longest 1:00: charged, but not to the updates")


@pytest.mark.parametrize(
    ("stalls", "asleep", "lines"),
    [
        ((0, 0.0, 0.0), 0.5, []),
        ((0, 0.0, 0.0), None, []),
        ((1, 10.0, 10.0), 0.0, [STALLED_ONCE]),
        ((3, 75.0, 60.0), 3600.0, [STALLED_OFTEN, ("asleep", "1:00:00, not charged")]),
    ],
)
def test_stalls_and_sleep_are_in_the_summary_where_there_were_any(
    stalls: tuple[int, float, float], asleep: float | None, lines: list[tuple[str, str]]
) -> None:
    figures = dict(zip(("number", "seconds", "longest_seconds"), stalls, strict=True))
    assert lost_time_lines({"stalls": figures, "time": {"not_charged": {"asleep": asleep}}}) == lines


def test_an_export_that_was_edited_is_not_used_for_examples(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "tokenizer.json").write_text("{}")
    write_checksums(tmp_path / "export", ["tokenizer.json"])
    (tmp_path / "export" / "tokenizer.json").unlink()
    with pytest.raises(
        CramError, match=r"tokenizer.json: missing. Remove the folder: the same command makes it again."
    ):
        result_lines(tmp_path, {"model": {"kind": "encoder"}, "export": "export/"})
