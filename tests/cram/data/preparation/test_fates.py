import numpy as np

from cram.data.cleaning.filters import REASONS
from cram.data.preparation.fates import Fate, find_dropped


def test_every_fate_has_a_value_of_its_own_in_a_byte() -> None:
    assert [fate.value for fate in Fate] == list(range(len(Fate)))
    assert len(Fate) < 256


def test_every_filter_has_a_fate() -> None:
    assert [Fate.of(reason).reason for reason in REASONS] == list(REASONS)
    assert {Fate.of(reason).value for reason in REASONS} == set(range(4, 4 + len(REASONS)))


def test_the_values_are_those_in_kept_files() -> None:
    assert [fate.reason for fate in Fate] == [
        "kept",
        "held_out",
        "empty",
        "broken",
        "min_words",
        "max_words",
        "symbols",
        "digits",
        "repetition",
        "compressibility",
        "decontaminate",
        "exact",
        "near",
        "near_held_out",
        "ids_held_out",
        "window_held_out",
    ]


def test_a_document_is_kept_held_out_or_dropped() -> None:
    assert [fate for fate in Fate if fate.is_kept] == [Fate.KEPT]
    assert [fate for fate in Fate if not fate.is_dropped] == [Fate.KEPT, Fate.HELD_OUT]
    values = np.array([fate.value for fate in Fate], np.uint8)
    assert find_dropped(values).tolist() == [fate.is_dropped for fate in Fate]
    assert find_dropped(values[:0]).tolist() == []
