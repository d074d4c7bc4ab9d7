import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from cram.data.inspect import plots
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from tests.cram.data.inspect.small_folder import CLS, PAD, print_folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that a test draws."""
    from matplotlib import pyplot

    found: list[Any] = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: (found.append(figure), close(figure)))
    return found


def test_the_plots_show_lengths_and_counts(
    shards: ShardSet, capsys: pytest.CaptureFixture[str], drawn: list[Any]
) -> None:
    out = print_folder(shards, capsys)
    paths = [shards.folder / "plots" / name for name in ("lengths.png", "tokens.png")]
    assert out.endswith(f"\nplots: {paths[0]}, {paths[1]}\n")
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in paths)
    lengths, tokens = (figure.axes[0] for figure in drawn)

    stream = shards.read(np.arange(shards.rows))[0].ravel()
    stream = stream[stream != PAD]
    found = np.diff(np.append(np.flatnonzero(stream == CLS), len(stream)))
    values, edges, _ = lengths.patches[0].get_data()
    documents = values * np.diff(np.log(edges)) / np.log(1.1)
    assert documents == pytest.approx(np.histogram(found, np.append(edges[:-1], edges[-1] - 0.5))[0])
    places = [line.get_xdata()[0] for line in lengths.lines]
    assert places == [pytest.approx(found.mean()), np.sort(found)[(len(found) - 1) // 2], 32]
    labels = [item.get_text() for item in drawn[0].legends[0].get_texts()]
    fitting = f"seq_len 32 ({(found <= 32).mean():.0%} of the documents fit)"
    assert labels == [f"mean {found.mean():,.0f}", f"median {places[1]}", fitting]
    assert lengths.get_xscale() == "log" and lengths.get_xlabel() == "tokens of a document"

    counts = np.sort(np.bincount(stream))[::-1]
    counts = counts[counts > 0]
    curve, zipf, *named = tokens.lines
    assert list(curve.get_ydata()) == counts.tolist() and list(curve.get_xdata()) == list(range(1, len(counts) + 1))
    assert list(zipf.get_ydata()) == pytest.approx(counts[0] / np.arange(1, len(counts) + 1))
    ranks = [1, 4, 16, 64, len(counts)]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in named] == [
        (rank, counts[rank - 1]) for rank in ranks
    ]
    tokenizer = Tokenizer.from_file(str(shards.tokenizer_path))
    names = [note.get_text().strip('"') for note in tokens.texts]
    assert [int((stream == tokenizer.token_to_id(name)).sum()) for name in names] == [counts[r - 1] for r in ranks]
    assert (tokens.get_xscale(), tokens.get_yscale()) == ("log", "log")


def test_documents_of_one_length_and_longer_ones_are_drawn(made: ShardSet, drawn: list[Any]) -> None:
    for lengths in ([0, 0, 0, 9], [0, 0, 5, 0, 4], [0] * 500 + [9]):
        made.lengths = lambda lengths=lengths: np.array(lengths)  # type: ignore[method-assign]
        assert plots._plot_lengths(made).startswith(b"\x89PNG")
    labels = [figure.axes[0].get_xlabel() for figure in drawn]
    assert labels[2] == "tokens of a document (last bar: 500 and more)"
    del made.lengths


@pytest.mark.parametrize("name", ["$x$ \u65e5\u672c \U0001f600 \x07", "$\\frac{a$"])
def test_any_name_of_a_token_is_drawn(
    made: ShardSet, drawn: list[Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Names:
        def id_to_token(self, token: int) -> str | None:
            return name if token % 2 else None

    plots._plot_tokens(made, Names())  # type: ignore[arg-type]
    assert any("$" in note.get_text() or "\\" in note.get_text() for note in drawn[0].axes[0].texts)


def test_a_folder_that_cannot_be_written_costs_the_plots_alone(
    shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards.folder / "plots").write_text("in the way")
    out = print_folder(shards, capsys)
    assert "\nrow " in out
    assert re.search(r"\nno plots, because .*/set/plots cannot be written \(.*\)\n$", out)


def test_a_full_disk_costs_the_plots_alone(
    shards: ShardSet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, __: bytes) -> Callable[[], None]:
        raise CramError("the disk is full")

    monkeypatch.setattr(plots, "write_atomic", full)
    assert print_folder(shards, capsys).endswith("/set/plots cannot be written (the disk is full)\n")
