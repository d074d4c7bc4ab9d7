import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cram.config.data import DataConfig, DedupeConfig
from cram.data.preparation import chunks, first_pass
from cram.data.preparation.engine import LocalEngine
from cram.data.preparation.fates import Fate
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.scan import Scanner
from cram.data.text.document import Location
from cram.data.text.source import Source
from cram.data.text.sources import open_source

WORDS = ["river", "castle", "teacher", "garden", "letter", "window", "soldier", "winter", "market", "doctor", "engine"]
CONFIG = DataConfig(held_out=0.2)
COOKIES = "We use cookies to make this site better for you.\n"
NAMES = ("part", "record", "fate", "hash", "bytes", "exact", "minhash")

Event = Callable[[str], None]


class Killed(BaseException):
    """An error that no code expects."""


class Report:
    """A progress report that calls an event for each advance and adds them up."""

    def __init__(self, event: Event = lambda name: None) -> None:
        self.done = 0
        self.total: int | None = None
        self._event = event

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        self.total = total

        def advance(amount: int) -> None:
            assert amount >= 0
            self._event("before advance")
            self.done += amount
            self._event("after advance")

        yield SimpleNamespace(advance=advance)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 3)
    monkeypatch.setattr(first_pass, "SEGMENT_DOCUMENTS", 7)
    monkeypatch.setattr(first_pass, "SEGMENT_BYTES", 1500)


def prose(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


def corpus(folder: Path, texts: list[list[str]], extra: list[int] | None = None) -> Source:
    """Write a file for each list of texts; `extra` bytes in each are not text."""
    folder.mkdir(exist_ok=True)
    for number, some in enumerate(texts):
        more = "x" * extra[number] if extra else ""
        lines = (json.dumps({"text": text, "more": more}) + "\n" for text in some)
        (folder / f"{number}.jsonl").write_text("".join(lines))
    return open_source(f"{folder}/*.jsonl")


def mixed(seed: int, documents: int) -> list[str]:
    """Texts that are kept, held out, short, empty, or with a notice."""
    source = random.Random(seed)
    found = []
    for number in range(documents):
        text = COOKIES * (source.random() < 0.3) + prose(1000 * seed + number, source.randint(12, 60))
        found.append(source.choice([text, text, text, "short", "", prose(7, 12) + "ä"]))
    return found


def outcome(done: Segments) -> dict[str, Any]:
    found = done.totals()
    found.seconds.clear()
    return {name: done.joined(name).tolist() for name in NAMES} | {
        "found": found,
        "taken": done.taken,
        "shares": done.shares(done.joined("fate") == 0),
        "files": len(done.maps("part") or []),
    }


def straight(folder: Path, source: Source, limit: int | None = None, processes: int = 1) -> Segments:
    done = Segments(folder)
    done.scan(source, limit, Scanner(CONFIG), LocalEngine(processes), Report())  # type: ignore[arg-type]
    assert done.complete
    return done


def interrupted(folder: Path, make: Callable[[], Source], limit: int | None, kills: Iterator[int]) -> int:
    """Scan until the pass is complete, killed after the events in `kills`; return the number of kills."""
    for times in range(200):
        events = count()
        last = next(kills)

        def event(name: str, last: int = last, events: Iterator[int] = events) -> None:
            if next(events) == last:
                raise Killed(name)

        with pytest.MonkeyPatch.context() as patch:
            for function in ("write_sealed_arrays", "write_sealed"):
                patch.setattr(first_pass, function, told(getattr(first_pass, function), event))
            try:
                Segments(folder).scan(make(), limit, Scanner(CONFIG), LocalEngine(1), Report(event))  # type: ignore[arg-type]
            except Killed:
                continue
        return times
    raise AssertionError("it does not get on")


def told(function: Callable[..., None], event: Event) -> Callable[..., None]:
    """Wrap a function so that there is an event before and after it."""

    def telling(*arguments: object) -> None:
        event(f"before {function.__name__}")
        function(*arguments)
        event(f"after {function.__name__}")

    return telling


@pytest.mark.parametrize("limit", [None, 4000])
def test_a_pass_killed_anywhere_continues_to_the_same_result(tmp_path: Path, limit: int | None) -> None:
    def make() -> Source:
        return corpus(tmp_path / "corpus", [mixed(1, 15), mixed(2, 2), [], mixed(3, 14)], [500, 0, 0, 0])

    whole = straight(tmp_path / "whole", make(), limit)
    expected = outcome(whole)
    assert expected["files"] >= 3 and len(set(expected["fate"])) >= 4
    for kill in count():
        if not interrupted(tmp_path / f"at-{kill}", make, limit, iter([kill, 10**9])):
            break
        assert outcome(Segments(tmp_path / f"at-{kill}")) == expected, kill
    assert kill >= 20, kill
    for often in (8, 13):  # events between two kills; the largest segment has three chunks and ten events
        assert interrupted(tmp_path / f"often-{often}", make, limit, iter(lambda often=often: often, -1)) > 1
        assert outcome(Segments(tmp_path / f"often-{often}")) == expected


def test_a_second_round_over_earlier_parts_is_in_order(tmp_path: Path) -> None:
    texts = [[prose(i, 20) for i in range(20)], [prose(100 + i, 20) for i in range(3)], [prose(200, 20)] * 2]

    def make() -> Source:
        return corpus(tmp_path / "corpus", texts, [0, 3000, 3000])

    done = straight(tmp_path / "whole", make(), 2500)
    assert done.taken[0] > 5 and done.taken[1:] == [3, 2]
    scanned = np.concatenate(done.maps("part") or [])
    assert (np.diff(scanned) < 0).sum() == 1, "the first part comes again behind the last"
    order = list(zip(done.joined("part"), done.joined("record"), strict=True))
    assert order == [(part, record) for part, taken in enumerate(done.taken) for record in range(taken)]
    sizes = [len(texts[part][record]) for part, record in order]
    assert done.joined("bytes").tolist() == sizes and 2500 <= sum(sizes) < 2500 + 200
    assert (np.concatenate(done.maps("hash") or [])[done.order] == done.joined("hash")).all()
    interrupted(tmp_path / "killed", make, 2500, iter([40, 10**9]))
    assert outcome(Segments(tmp_path / "killed")) == outcome(done)


def test_every_document_is_scanned_once(tmp_path: Path) -> None:
    texts = [mixed(1, 15), mixed(2, 5)]
    done = straight(tmp_path / "whole", corpus(tmp_path / "corpus", texts))
    flat = [text for some in texts for text in some]
    assert done.taken == [15, 5]
    assert done.joined("bytes").tolist() == [len(text.encode()) for text in flat]
    bytes = [sum(len(text.encode()) for text in some) for some in texts]
    assert done.shares(np.ones(len(done.joined("fate")), bool)) == [bytes[0] / sum(bytes), 1.0]
    fates = done.joined("fate")
    found = done.totals()
    held_out = {text for text, fate in zip(flat, fates, strict=True) if fate == Fate.HELD_OUT}
    assert set(found.held_out.chosen().values()) == held_out
    assert [sample.text for sample in found.samples["min_words"]] == ["short"] * flat.count("short")
    assert found.cut_documents == sum(COOKIES in flat[i] for i in np.flatnonzero(fates != Fate.HELD_OUT))
    assert found.cut_bytes == found.cut_documents * len(COOKIES)


def test_if_no_document_is_held_out_the_lowest_of_all_segments_is(tmp_path: Path) -> None:
    done = Segments(tmp_path / "whole")
    texts = [mixed(1, 15), mixed(2, 5)]
    source = corpus(tmp_path / "corpus", texts)
    done.scan(source, None, Scanner(DataConfig(held_out=0.0)), LocalEngine(1), Report())  # type: ignore[arg-type]
    kept = done.joined("fate") == Fate.KEPT
    hashes = done.joined("hash")[kept]
    flat = np.array([text for some in texts for text in some])[kept]
    assert done.totals().held_out.chosen() == {int(hashes.min()): flat[hashes.argmin()]}


@pytest.mark.parametrize("limit", [None, 3000])
def test_progress_reaches_its_total_when_a_pass_is_continued(tmp_path: Path, limit: int | None) -> None:
    texts = [mixed(1, 15), mixed(2, 5), mixed(3, 15)]
    for stop in (6, 10**9):
        events = count()

        def event(name: str, stop: int = stop, events: Iterator[int] = events) -> None:
            if next(events) == stop:
                raise Killed(name)

        report = Report(event)
        source = corpus(tmp_path / "corpus", texts)
        done = Segments(tmp_path / "done")
        with suppress(Killed):
            done.scan(source, limit, Scanner(CONFIG), LocalEngine(1), report)  # type: ignore[arg-type]
        assert done.maps("part") and done.complete == (stop > 6)
    disk = sum(part.size for part in source.parts)
    assert report.total == min(limit or disk, disk)
    assert report.done == report.total


def test_a_source_of_unknown_size_shows_how_much_text_was_read(tmp_path: Path) -> None:
    report, source = Report(), corpus(tmp_path / "corpus", [mixed(1, 15), mixed(2, 5)])
    for part in source.parts:
        part.size = 0
    done = Segments(tmp_path / "done")
    done.scan(source, None, Scanner(CONFIG), LocalEngine(1), report)  # type: ignore[arg-type]
    assert report.total is None and report.done == done.joined("bytes").sum() > 0


def test_progress_reaches_its_total_if_the_source_ends_before_the_limit(tmp_path: Path) -> None:
    report = Report()
    source = corpus(tmp_path / "corpus", [mixed(1, 15), mixed(2, 5)])
    done = Segments(tmp_path / "done")
    done.scan(source, 10**9, Scanner(CONFIG), LocalEngine(1), report)  # type: ignore[arg-type]
    assert done.exhausted and report.done == report.total == sum(part.size for part in source.parts)


def test_bytes_of_kept_documents_before_a_place(tmp_path: Path) -> None:
    done = straight(tmp_path / "whole", corpus(tmp_path / "corpus", [["aa", "b"], ["cccc", "dddddddd"]]))
    kept = np.array([True, False, True, True])
    assert done.kept_bytes(kept, Location(0, -1)) == (14, 0)
    assert done.kept_bytes(kept, Location(1, 0)) == (14, 6)


def test_segments_end_by_bytes_too(tmp_path: Path) -> None:
    done = straight(tmp_path / "whole", corpus(tmp_path / "corpus", [[prose(i, 200) for i in range(4)] * 3]))
    assert [len(part) for part in done.maps("part") or []] == [3, 3, 3, 3]


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    texts = [mixed(1, 15), mixed(2, 5)]
    one, two = (
        straight(tmp_path / str(processes), corpus(tmp_path / "corpus", texts), None, processes) for processes in (1, 2)
    )
    assert outcome(one) == outcome(two)


def test_a_complete_pass_is_not_repeated(tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus", [mixed(1, 15)])
    straight(tmp_path / "whole", source)
    again = Segments(tmp_path / "whole")
    assert again.complete
    again.scan(source, None, Scanner(CONFIG), LocalEngine(1), None)  # type: ignore[arg-type]


def test_no_documents_at_all(tmp_path: Path) -> None:
    done = Segments(tmp_path / "none")
    assert not done.complete
    done.scan(corpus(tmp_path / "corpus", [[], []]), None, Scanner(CONFIG), LocalEngine(1), Report())  # type: ignore[arg-type]
    assert done.complete and done.taken == [0, 0] and Segments(tmp_path / "none").taken == [0, 0]
    assert not done.totals().samples and not done.totals().held_out.chosen()
    assert done.maps("exact") == []


def test_only_documents_without_text(tmp_path: Path) -> None:
    done = straight(tmp_path / "none", corpus(tmp_path / "corpus", [["", ""], [""]]))
    assert done.taken == [2, 1] and done.joined("fate").tolist() == [Fate.EMPTY] * 3
    assert done.shares(done.joined("fate") == 0) == [0.0, 0.0]


def test_signatures_that_were_not_computed_are_none(tmp_path: Path) -> None:
    done = Segments(tmp_path / "whole")
    config = DataConfig(dedupe=DedupeConfig(near=None))
    done.scan(corpus(tmp_path / "corpus", [mixed(1, 15)]), None, Scanner(config), LocalEngine(1), Report())  # type: ignore[arg-type]
    assert done.maps("minhash") is None
    exact = done.maps("exact")
    assert exact and sum(map(len, exact)) == 15
