import json
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.text import reading_plan
from cram.data.text.document import Document, LocatedDocument, faulty_document
from cram.data.text.reading_plan import ReadingPlan, ReadingState
from cram.data.text.source import PartGroup, Source, SourcePart


class ListPart(SourcePart):
    """Documents from memory; counts how many parts are open, and what is read."""

    open_now = 0

    def __init__(self, name: str, texts: list[str | None], size: int) -> None:
        super().__init__(name, size)
        self.texts = texts
        self.opened = self.documents_read = 0

    def read(self) -> Iterator[tuple[Document, int]]:
        self.opened += 1
        return self._read_texts()

    def _read_texts(self) -> Iterator[tuple[Document, int]]:
        type(self).open_now += 1
        try:
            for number, text in enumerate(self.texts):
                assert type(self).open_now == 1, "one part at a time"
                self.documents_read += 1
                origin = f"{self.name}:{number}"
                document = faulty_document(origin, "broken") if text is None else Document(text, origin)
                yield document, self.size * number // len(self.texts)
        finally:
            type(self).open_now -= 1


class ListSource(Source):
    def __init__(self, *parts: ListPart) -> None:
        self.lists = list(parts)

    @property
    def parts(self) -> list[SourcePart]:
        return list(self.lists)

    def fingerprint(self) -> str:
        return ""


def repeated(letter: str, times: int, size: int) -> ListPart:
    return ListPart(letter, [letter] * times, size)


def take(source: Source, limit: int | None) -> str:
    return "".join(document.text for _, document in ReadingPlan(source, limit))


def test_each_part_gives_its_share() -> None:
    source = ListSource(repeated("a", 1000, 100), repeated("b", 1000, 300), repeated("c", 1000, 600))
    assert take(source, 500) == "a" * 50 + "b" * 150 + "c" * 300
    assert [part.documents_read for part in source.lists] == [50, 150, 300], "nothing is read needlessly"


def test_parts_of_unknown_size_count_equally() -> None:
    source = ListSource(repeated("a", 1000, 0), repeated("b", 1000, 0), repeated("c", 1000, 0))
    assert take(source, 300) == "a" * 100 + "b" * 100 + "c" * 100


def test_later_parts_make_up_for_a_short_one() -> None:
    source = ListSource(repeated("a", 10, 500), repeated("b", 1000, 500))
    assert take(source, 200) == "a" * 10 + "b" * 190


def test_earlier_parts_are_read_further_if_the_last_ones_are_short() -> None:
    letters: list[str | None] = ["a", "A", "z"] * 300
    source = ListSource(ListPart("a", letters, 500), repeated("b", 10, 500))
    taken = take(source, 200)
    assert len(taken) == 200
    assert taken.replace("b", "") == ("aAz" * 300)[:190], "in order, none twice"


def test_a_part_is_not_opened_if_earlier_ones_have_given_its_share() -> None:
    source = ListSource(ListPart("long", ["x" * 1000], 10), repeated("a", 5, 10), repeated("b", 5, 10))
    assert take(source, 100) == "x" * 1000
    assert [part.opened for part in source.lists] == [1, 0, 0]


@pytest.mark.parametrize("limit", [None, 10**9])
def test_without_a_limit_or_with_one_too_large_all_is_taken(limit: int | None) -> None:
    source = ListSource(repeated("a", 10, 0), repeated("b", 10, 0))
    plan = ReadingPlan(source, limit)
    assert "".join(document.text for _, document in plan) == "a" * 10 + "b" * 10
    assert plan.state == ReadingState([10, 10], [True, True], 20)
    assert [part.opened for part in source.lists] == [1, 1]


def test_bytes_are_counted_not_characters() -> None:
    source = ListSource(ListPart("a", ["größer"] * 10, 1))
    plan = ReadingPlan(source, 9)
    assert [document.text for _, document in plan] == ["größer", "größer"]
    assert plan.state.bytes == 16


def test_finished_parts_count_as_read() -> None:
    source = ListSource(repeated("a", 10, 70), repeated("b", 10, 30))
    plan = ReadingPlan(source, None, ReadingState(taken=[10, 0], exhausted=[True, False], bytes=10))
    assert plan.positions == [70, 0]
    assert [plan.positions[:] for _ in plan] == [[70, 3 * number] for number in range(10)]
    assert plan.positions == [70, 30]


def test_a_plan_copies_the_state_that_it_starts_from() -> None:
    source = ListSource(repeated("a", 10, 70))
    state = ReadingState([0], [False])
    assert len(list(ReadingPlan(source, None, state))) == len(list(ReadingPlan(source, None, state))) == 10
    assert state == ReadingState([0], [False])


def test_the_state_survives_json() -> None:
    state = ReadingState([3, 0], [True, False], 7)
    assert ReadingState(**json.loads(json.dumps(state.to_json()))) == state


some_texts = st.lists(st.one_of(st.none(), st.text("aé", max_size=4)), max_size=6)
some_parts = st.lists(st.tuples(some_texts, st.integers(0, 3)), max_size=5)
some_limit = st.one_of(st.none(), st.integers(0, 60))


def make(parts: list[tuple[list[str | None], int]]) -> ListSource:
    return ListSource(*(ListPart(str(number), texts, size) for number, (texts, size) in enumerate(parts)))


def count(items: list[str | None]) -> int:
    return sum(len(text.encode()) for text in items if text is not None)


@given(some_parts, some_limit)
def test_documents_come_in_order_up_to_the_limit(parts: list[tuple[list[str | None], int]], limit: int | None) -> None:
    source = make(parts)
    plan = ReadingPlan(source, limit)
    given_of: list[list[str | None]] = [[] for _ in parts]
    for (index, record), document in plan:
        assert limit is None or plan.state.bytes - count([document.text]) < limit, "nothing is given beyond the limit"
        assert record == len(given_of[index]), "in order, faults counted"
        assert document.origin == f"{index}:{record}"
        given_of[index].append(None if document.fault else document.text)
        assert plan.state.taken == [len(texts) for texts in given_of]
        assert plan.state.bytes == sum(map(count, given_of))
    assert all(texts[: len(some)] == some for (texts, _), some in zip(parts, given_of, strict=True))
    if limit is None or plan.state.bytes < limit:
        assert given_of == [texts for texts, _ in parts]
    for part, taken, done in zip(source.lists, plan.state.taken, plan.state.exhausted, strict=True):
        assert part.opened <= 2 and (not done or taken == len(part.texts))


@given(some_parts, some_limit, st.lists(st.integers(0, 8), max_size=6))
def test_a_plan_that_continues_gives_the_rest(
    parts: list[tuple[list[str | None], int]], limit: int | None, stops: list[int]
) -> None:
    whole = list(ReadingPlan(make(parts), limit))
    pieces: list[LocatedDocument] = []
    plan = ReadingPlan(make(parts), limit)
    for stop in stops:
        pieces += islice(plan, stop)
        source = make(parts)
        finished = list(plan.state.exhausted)
        plan = ReadingPlan(source, limit, plan.state)
        assert sum(part.opened for part in source.lists) == 0
    rest = list(plan)
    assert pieces + rest == whole
    if stops:
        assert not any(part.opened for part, done in zip(source.lists, finished, strict=True) if done)
        if not rest and limit is not None and plan.state.bytes >= limit:
            assert not any(part.opened for part in source.lists)


class GroupedSource(ListSource):
    """Parts in groups: `owners` names the group of each part."""

    def __init__(self, parts: list[ListPart], owners: list[int], shares: list[float]) -> None:
        super().__init__(*parts)
        self.owners, self.shares = owners, shares

    def _make_groups(self) -> list[PartGroup]:
        places = [[part for part, owner in enumerate(self.owners) if owner == one] for one in range(len(self.shares))]
        return [PartGroup(str(one), share, places[one]) for one, share in enumerate(self.shares)]


def test_groups_share_the_limit() -> None:
    parts = [repeated("a", 1000, 10), repeated("b", 1000, 500), repeated("A", 1000, 30)]
    source = GroupedSource(parts, [0, 1, 0], [0.8, 0.2])
    letters = take(source, 100)
    assert letters == "a" * 20 + "A" * 60 + "b" * 20
    letters = take(source.balanced([1.0, 4.0]), 100)
    assert (letters.count("b"), len(letters)) == (50, 100)


@pytest.mark.parametrize("limit", [None, 10**9])
def test_the_scarcest_group_ends_the_reading_of_all(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    monkeypatch.setattr(reading_plan, "FIRST_LIMIT", 16)
    source = GroupedSource([repeated("a", 100_000, 10), repeated("b", 50, 500)], [0, 1], [0.75, 0.25])
    letters = take(source.balanced([1.0, 1.0]), limit)
    assert letters.count("b") == 50
    # 150 of the first are needed beside 50 of the second; a tenth more in case some are dropped.
    assert 165 <= letters.count("a") <= (165 * reading_plan.GROWTH if limit is None else 100_000)
    assert len(take(source, 1000)) == 800, "a sample takes the share of each"


some_groups = st.lists(st.tuples(some_texts, st.integers(0, 3), st.integers(0, 2)), min_size=3, max_size=6)


@given(some_groups, some_limit, st.lists(st.integers(0, 8), max_size=6), st.sampled_from([1, 5, 40]))
def test_a_plan_of_groups_that_continues_gives_the_rest(
    parts: list[tuple[list[str | None], int, int]], limit: int | None, stops: list[int], first_limit: int
) -> None:
    def source() -> GroupedSource:
        lists = [ListPart(str(number), texts, size) for number, (texts, size, _) in enumerate(parts)]
        return GroupedSource(lists, [0, 1, 2, *(owner for _, _, owner in parts[3:])], [0.5, 0.3, 0.2])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_plan, "FIRST_LIMIT", first_limit)
        whole = list(ReadingPlan(source(), limit))
        assert len({located.location for located in whole}) == len(whole)
        pieces: list[LocatedDocument] = []
        plan = ReadingPlan(source(), limit)
        for stop in stops:
            pieces += islice(plan, stop)
            plan = ReadingPlan(source(), limit, ReadingState(**json.loads(json.dumps(plan.state.to_json()))))
        assert pieces + list(plan) == whole
