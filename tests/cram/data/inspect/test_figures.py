import numpy as np
import pytest

from cram.data.inspect.figures import (
    BAR,
    histogram_lengths,
    list_fates,
    list_stages,
    printable,
    rank_tokens,
    sort_reasons,
)

COUNTS = {
    "documents_in": 20,
    "bytes_in": 4_000_000,
    "held_out_documents": 1,
    "held_out_bytes": 10,
    "not_needed_documents": 2,
    "documents": 15,
    "bytes": 2_000_000,
    "boilerplate_documents": 0,
    "boilerplate_bytes": 0,
}


def test_the_fates_of_the_documents_are_in_order() -> None:
    dropped = {"near": {"documents": 1, "bytes": 5}, "min_words": {"documents": 1, "bytes": 6}}
    lines = list_fates({"counts": COUNTS, "dropped": dropped})
    assert [(line.name, line.reason, line.documents, line.bytes) for line in lines] == [
        ("read", "", 20, 4_000_000),
        ("held out", "", 1, 10),
        ("dropped", "min_words", 1, 6),
        ("dropped", "near", 1, 5),
        ("after the token limit", "", 2, None),
        ("kept", "", 15, 2_000_000),
        ("boilerplate lines cut", "", 0, 0),
    ]


def test_unknown_reasons_follow_the_known_ones() -> None:
    assert sort_reasons(["zebra", "near", "ape", "empty"]) == ["empty", "near", "ape", "zebra"]


def test_stages_have_the_speed_of_the_text_that_they_read() -> None:
    timing = {
        "processes": 2,
        "wall_seconds": {"tokenizer": 1.0, "scan": 2.0, "pack": 0.001},
        "scan_seconds": {"filters": 4.0},
    }
    lines = {line.name: (line.seconds, line.speed, line.is_activity) for line in list_stages(timing, COUNTS)}
    assert lines == {
        "tokenizer": (1.0, None, False),
        "scan": (2.0, 2_000_000, False),
        "filters": (4.0, 1_000_000, True),
        "pack": (0.001, None, False),
        "all": (pytest.approx(3.001), pytest.approx(4_000_000 / 3.001), False),
    }


def test_a_stage_that_began_before_a_restart_has_no_speed() -> None:
    timing = {"processes": 2, "wall_seconds": {"scan": 1.0}, "scan_seconds": {"filters": 4.0}}
    assert [line.speed for line in list_stages(timing, COUNTS)] == [None, 1_000_000, None]


def test_the_histogram_counts_every_document() -> None:
    lengths = np.random.RandomState(0).randint(0, 9, 500)
    lengths[:20] = 0
    histogram = histogram_lengths(lengths, int(lengths @ np.arange(500)), 100)
    counts = histogram.heights * np.diff(np.log(histogram.edges)) / np.log(BAR)
    assert counts.sum() == pytest.approx(lengths.sum())
    documents = np.repeat(np.arange(500), lengths)
    assert histogram.mean == pytest.approx(documents.mean())
    assert histogram.median == np.sort(documents)[(len(documents) - 1) // 2]
    assert histogram.fitting == pytest.approx((documents <= 100).mean())
    assert histogram.most == (499 if lengths[-1] else None)


def test_tokens_are_ranked_by_count_and_then_by_id() -> None:
    ranks = rank_tokens(np.array([0, 3, 9, 3, 0, 1]))
    assert ranks.tokens.tolist() == [2, 1, 3, 5] and ranks.counts.tolist() == [9, 3, 3, 1]
    assert ranks.vocab_size == 6 and ranks.named() == [1, 4]
    assert rank_tokens(np.ones(70, np.int64)).named() == [1, 4, 16, 64, 70]


def test_characters_that_cannot_be_seen_are_escaped() -> None:
    assert printable("é日 \u202e\x07\n\xa0") == "é日 \\u202e\\x07\\n\\xa0"
