"""The competence of the paper, and rows that are uniform below it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cram.config.methods import CurriculumConfig
from cram.methods.curriculum import Curriculum, competence

ROWS = 5000


class FakeLoader:
    """Row 7 * rank mod ROWS has the rank: the numbers are no ranks."""

    def __init__(self) -> None:
        self.choose = None

    def ranked(self) -> np.ndarray:
        return np.arange(ROWS, dtype=np.int64) * 7 % ROWS

    def draw(self, choose: object) -> None:
        self.choose = choose  # type: ignore[assignment]


def ordered(config: CurriculumConfig, seed: int = 0) -> Curriculum:
    curriculum = Curriculum(config, seed)
    curriculum.order(FakeLoader())
    return curriculum


def ranks(numbers: np.ndarray) -> np.ndarray:
    rank_of = np.empty(ROWS, np.int64)
    rank_of[FakeLoader().ranked()] = np.arange(ROWS)
    return rank_of[numbers]


@given(
    kind=st.sampled_from(["linear", "sqrt"]),
    start=st.floats(0.001, 1.0),
    length=st.floats(0.01, 1.0),
    progress=st.floats(0.0, 1.0),
)
def test_competence_is_that_of_the_paper(kind: str, start: float, length: float, progress: float) -> None:
    config = CurriculumConfig(competence=kind, start=start, length=length)  # type: ignore[arg-type]
    p = {"linear": 1, "sqrt": 2}[kind]
    expected = min(1.0, (progress * (1 - start**p) / length + start**p) ** (1 / p))
    assert competence(config, progress) == pytest.approx(expected, rel=1e-9)
    assert competence(config, length) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["linear", "sqrt"])
@pytest.mark.parametrize("progress", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_ranks_are_uniform_below_the_competence(kind: str, progress: float) -> None:
    config = CurriculumConfig(competence=kind, start=0.05, length=0.5)  # type: ignore[arg-type]
    drawn = ranks(ordered(config).draw(100, 20_000, progress))
    allowed = math.ceil(competence(config, progress) * ROWS)
    assert drawn.max() < allowed
    counts = np.bincount(drawn * 50 // allowed, minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-3


@given(cut=st.integers(1, 199), first=st.integers(0, 10**9))
def test_draws_depend_on_their_place_and_not_on_the_updates(cut: int, first: int) -> None:
    config = CurriculumConfig(competence="sqrt")
    whole = ordered(config, 3).draw(first, 200, 0.2)
    parts = ordered(config, 3)
    assert np.array_equal(whole, [*parts.draw(first, cut, 0.2), *parts.draw(first + cut, 200 - cut, 0.2)])
    assert not np.array_equal(whole, ordered(config, 4).draw(first, 200, 0.2))


def test_repeated_rows_are_counted_across_a_resume() -> None:
    config = CurriculumConfig(competence="linear", start=0.01)
    curriculum, resumed = ordered(config), Curriculum(config, 0)
    seen = curriculum.draw(0, 40, 0.0)
    resumed.load_state_tensors(curriculum.state_tensors(), torch.nn.Linear(1, 1))
    assert torch.equal(resumed.state_tensors()["drawn"], curriculum.state_tensors()["drawn"])
    resumed.order(FakeLoader())
    more = resumed.draw(40, 40, 0.0)
    assert resumed.repeated_rows(80) == 80 - len({*seen.tolist(), *more.tolist()})
    assert Curriculum(config, 0).repeated_rows(5) is None
