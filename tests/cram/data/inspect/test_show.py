import json
import re
from contextlib import redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer

from cram.data.inspect import show
from cram.data.preparation.fates import Fate
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.files.atomic import sha256_file
from cram.files.sealed import write_sealed
from tests.cram.data.inspect.small_folder import CLS, NOTICE, PAD, SEP, SHORT, plain, prepared, print_folder


@pytest.fixture(scope="module")
def whole(made: ShardSet) -> str:
    """All that is printed for the folder."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        plain(patch)
        show.print_shards(made.folder)
    return out.getvalue()


def summarize(shards: ShardSet, capsys: pytest.CaptureFixture[str], **options: bool) -> str:
    capsys.readouterr()
    show.print_summary(shards, **options)
    return capsys.readouterr().out


def figures(out: str, name: str) -> list[str]:
    """The words after a name at the start of a line."""
    (line,) = re.findall(rf"^ *{re.escape(name)}  +(.*?) *$", out, re.MULTILINE)
    return re.split("  +", line)


def test_the_summary_tells_what_became_of_the_documents(made: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    out = summarize(made, capsys)
    read, held_out, kept = (figures(out, name) for name in ("read", "held out", "kept"))
    assert read[:2] == ["216", "100.00%"]
    assert figures(out, "dropped: min_words")[0] == "7"
    exact, near = figures(out, "dropped: exact"), figures(out, "dropped: near")
    gone = 7 + int(exact[0]) + int(near[0]) + sum(map(int, re.findall(r"dropped: near_held_out +(\d+)", out)))
    assert int(held_out[0]) + gone + int(kept[0]) == 216
    assert figures(out, "dropped: min_words")[1:] == ["3.24%", f"{7 * len(f'{SHORT} 0'.encode()):,}"]
    cut = int(figures(out, "boilerplate lines cut")[0])
    assert 0 < cut <= 8
    assert figures(out, "boilerplate lines cut")[2] == str(cut * len("\n" + NOTICE))
    each = made.manifest["counts"]["bytes"] / made.tokens
    assert f"{made.tokens:,} tokens ({each:.2f} bytes each) in {made.rows:,} rows x 32 tokens, 1 shard(s)" in out
    about = made.manifest["tokenizer"]
    unknown, lost = (f"{about[name]:.2%}" for name in ("unknown_tokens", "lost_characters"))
    assert f"{unknown} of the tokens are unknown; {lost} of a sample's characters are lost" in out
    assert int(read[2].replace(",", "")) > int(kept[2].replace(",", "")) == made.manifest["counts"]["bytes"]


def test_the_summary_tells_how_many_c1_controls_were_replaced(
    made: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "C1 controls" not in summarize(made, capsys)
    shards = ShardSet.open(made.folder)
    shards.manifest["counts"] |= {"fixed_documents": 1200, "fixed_characters": 34567}
    assert "34,567 C1 control(s) in 1,200 document(s) were replaced" in summarize(shards, capsys)
    del shards.manifest["counts"]["fixed_documents"]  # as in folders that were prepared before
    assert "C1 controls" not in summarize(shards, capsys)


def test_the_summary_tells_how_rows_are_filled(made: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    out = summarize(made, capsys)
    fill, cut, how = figures(out, "greedy")
    assert fill == f"{made.tokens / made.rows / 32:.3%}" and how == "measured"
    assert int(cut) == made.manifest["packing"]["greedy"]["cut_documents"] > 0
    assert figures(out, "best_fit")[1:] == ["0", "computed from the lengths"]
    short = summarize(made, capsys, short=True)
    assert re.search(rf"^packing greedy: [\d.]+% filled, {cut} documents cut that fit into a row$", short, re.MULTILINE)
    assert re.search(r"^packing best_fit instead: [\d.]+% filled, 0 documents cut", short, re.MULTILINE)


def write_timing(shards: ShardSet, scan: float = 2.0) -> None:
    timing = {
        "processes": 2,
        "wall_seconds": {"tokenizer": 1.5, "scan": scan, "pack": 0.004, "orders": 0.0},
        "scan_seconds": {"hashing": 0.5, "filters": 3.0},
        "pack_seconds": {"tokenizing": 0.001},
        "peak_bytes": {"this process": 123_400_000, "a worker": 0},
    }
    write_sealed(shards.folder / "timing.json", timing)


def test_the_summary_tells_where_the_time_was_spent(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    write_timing(shards)
    shards.manifest["counts"]["bytes_in"] = 7_000_000
    out = summarize(shards, capsys)
    assert (figures(out, "tokenizer"), figures(out, "scan")) == (["1.5"], ["2.0", "3.5"])
    assert (figures(out, "hashing"), figures(out, "filters")) == (["0.5", "14.0"], ["3.0", "2.3"])
    assert (figures(out, "pack"), figures(out, "all")) == (["0.0"], ["3.5", "2.0"])
    assert "2 process(es), peak memory: this process 123 MB\n" in out
    assert "time: tokenizer 1.5 s, scan 2.0 s, pack 0.0 s, orders 0.0 s\n" in summarize(shards, capsys, short=True)


def test_a_resumed_stage_has_no_speed(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    write_timing(shards, scan=0.1)
    out = summarize(shards, capsys)
    assert (figures(out, "scan"), figures(out, "all")) == (["0.1"], ["1.6"])


def test_without_timing_the_time_is_left_out(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    (shards.folder / "timing.json").unlink()
    for short in (False, True):
        out = summarize(shards, capsys, short=short)
        assert "kept" in out and "tokenizer" not in out and "memory" not in out


def test_the_short_summary_fits_on_a_screen(
    shards: ShardSet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = [fate.reason for fate in Fate if fate.is_dropped]
    shards.manifest["dropped"] = {reason: {"documents": 10**9, "bytes": 10**13} for reason in reasons}
    shards.manifest["counts"] |= {"not_needed_documents": 10**9, "boilerplate_documents": 10**9}
    for forced in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", forced)
        lines = summarize(shards, capsys, short=True).splitlines()
        assert len(lines) <= 24
        assert all(len(re.sub(r"\x1b\[[\d;]*m", "", line)) <= 80 for line in lines[1:])


def test_dropped_text_is_printed_without_markup_and_control_characters(whole: str) -> None:
    assert "\ndropped: min_words (3 of the 7 samples in statistics.json)\n" in whole
    wanted = r"    | a [bold]short[/bold] \x1b[31mone\x1b[0m\r ⏎ with :smile: \u202e\u2028 naïve 日 "
    assert whole.count(wanted) == 3
    assert all(sign.isprintable() for sign in whole.replace("\n", ""))
    assert "\nlines cut as boilerplate (3 of the " in whole
    assert whole.count(f"    | {NOTICE}\n") == 3
    assert re.search(r"^  corpus.jsonl:\d+$", whole, re.MULTILINE)


@pytest.mark.parametrize("forced", ["", "1"])
def test_output_in_ascii_is_escaped(made: ShardSet, monkeypatch: pytest.MonkeyPatch, forced: str) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setattr(show, "draw_plots", lambda *_: None)
    written = BytesIO()
    with redirect_stdout(TextIOWrapper(written, "ascii", write_through=True)) as out:
        show.print_shards(made.folder)
    assert rb"na\xefve" in written.getvalue() and out


def test_duplicates_are_printed_with_the_document_they_repeat(made: ShardSet, whole: str) -> None:
    pairs = json.loads((made.folder / "statistics.json").read_text())["duplicates"]
    assert f"\nduplicates (3 of the {len(pairs)} pairs in statistics.json)\n" in whole
    part = whole.partition("\nduplicates")[2].partition("\nrow ")[0]
    texts = re.findall(r"^    \| (.*)$", part, re.MULTILINE)
    assert [float(found) for found in re.findall(r"similarity ([\d.]+), dropped: corpus", part)] == pytest.approx(
        [pairs[0]["similarity"], pairs[(len(pairs) - 1) // 2]["similarity"], pairs[-1]["similarity"]], abs=5e-4
    )
    assert part.count("  a duplicate of: corpus.jsonl:") == 3
    assert len(texts) == 6
    assert texts[0] == texts[1] and texts[4][:190] == texts[5][:190]
    assert all(len(found) <= 200 for found in texts)
    assert any(found.endswith("...") and len(found) == 200 for found in texts)


def test_a_folder_without_dropped_documents_has_no_samples(
    shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shards.folder / "statistics.json"
    path.write_text('{"samples": {}, "duplicates": []}')
    files = shards.manifest["files"] | {path.name: sha256_file(path)}
    write_sealed(shards.folder / "manifest.json", shards.manifest | {"files": files})
    out = print_folder(shards, capsys)
    assert "statistics.json" not in out and "\nrow " in out


@pytest.mark.parametrize("packing", ["greedy", "best_fit"])
def test_a_row_is_printed_document_by_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packing: str
) -> None:
    made = prepared(tmp_path / "corpus", packing=packing)
    tokenizer = Tokenizer.from_file(str(made.tokenizer_path))
    continued = cut = padded = 0
    for row in [*range(0, made.rows, 5), *range(made.rows - 20, made.rows)]:
        head, *lines = print_folder(made, capsys, row).splitlines()[1:]
        tokens, documents = (array[0] for array in made.read(np.array([row])))
        rebuilt: list[int] = []
        for number, line in enumerate(lines):
            found = re.fullmatch(rf" *{number} (continued|         ) \| (.*)", line)
            assert found
            ids = tokens[(documents == number) & (tokens != PAD)].tolist()
            rebuilt += ids
            words = tokenizer.decode(ids, skip_special_tokens=False)
            assert found[2] == words
            assert words.startswith("[CLS]") == (ids[0] == CLS) == (found[1] != "continued")
            assert words.endswith("[SEP]") == (ids[-1] == SEP)
            continued += found[1] == "continued"
            cut += ids[-1] != SEP
        padding = int((tokens == PAD).sum())
        padded += padding > 0
        assert rebuilt == tokens[tokens != PAD].tolist()
        assert head == f"row {row}: {32 - padding} tokens of {len(lines)} document(s), {padding} of padding"
    assert continued > 5 and cut > 5
    assert padded or packing == "greedy"


def test_printed_rows_are_spread_over_the_folder(made: ShardSet, whole: str) -> None:
    found = [int(row) for row in re.findall(r"^row (\d+):", whole, re.MULTILINE)]
    assert found == [made.rows // 6, made.rows // 2, 5 * made.rows // 6]


@pytest.mark.parametrize("row", [-1, 10**6])
def test_a_row_that_does_not_exist_is_refused(made: ShardSet, row: int) -> None:
    with pytest.raises(CramError, match=rf"row={row}: .* does not have this row; its rows are 0 to {made.rows - 1}$"):
        show.print_shards(made.folder, row)


def test_with_row_only_that_row_is_printed(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_folder(shards, capsys, 0).startswith("\nrow 0: ")
    assert not (shards.folder / "plots").exists()


def test_on_a_terminal_a_document_wraps_beside_its_number(
    made: ShardSet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    row = int(np.flatnonzero(made.read(np.arange(made.rows))[1].max(axis=1))[5])
    unwrapped = print_folder(made, capsys, row).splitlines()[2:]
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = print_folder(made, capsys, row)
    assert "\x1b[36m[CLS]\x1b[0m" in out
    lines = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()[2:]
    assert len(lines) > len(unwrapped) > 1
    assert all(len(line) <= 60 for line in lines)
    assert {line[:16] for line in lines} == {line[:16] for line in unwrapped} | {" " * 16}
    assert " ".join(line[16:].strip() for line in lines) == " ".join(line[16:] for line in unwrapped)


@given(st.text())
def test_any_text_can_be_printed(text: str) -> None:
    for encoding in ("utf-8", "ascii", "latin-1"):
        console = Console(file=TextIOWrapper(BytesIO(), encoding), highlight=False)
        seen = show._printable_text(text, console).plain
        assert seen.isprintable()
        assert seen.encode(encoding).count(b"?") == text.count("?")
        assert not (text.isascii() and text.isprintable()) or seen == text


def test_a_folder_that_is_not_a_shard_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"not a shard folder, it has no manifest.json; run cram.prepare"):
        show.print_shards(tmp_path)
