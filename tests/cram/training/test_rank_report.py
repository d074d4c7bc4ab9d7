"""What ranks report of themselves."""

from pathlib import Path
from typing import Any

import pytest

from cram.training.rank_report import RankFacts, name_devices, report_ranks
from tests.cram.training.fake_session import make_session

MEMORY: dict[str, int | None] = {"host": 10, "gpu": None}


def test_each_device_is_named_and_ranks_beside_the_first_by_their_number() -> None:
    facts = [RankFacts("H200", host, 0.0, MEMORY, 4) for host in ("a", "a", "b")]
    assert name_devices(facts) == ["H200", "H200 of rank 1", "H200 of rank 2"]


def test_a_run_alone_has_one_rank_and_no_efficiency(tmp_path: Path) -> None:
    report = report_ranks(make_session(tmp_path), 100.0)
    assert (report["world_size"], report["backend"], report["tokens_per_second"]) == (1, None, 100.0)
    assert (report["scaling_efficiency"], report["waiting_seconds"]) == (None, None)
    assert len(report["devices"]) == len(report["peak_memory_bytes"]) == 1


def test_the_efficiency_compares_with_passes_of_one_rank_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = make_session(tmp_path)
    session.state.lone_tokens_per_second, session.state.rank_waiting = 100.0, 2.5
    facts = [RankFacts("H200", "a", 0.0, MEMORY, 4)] * 2
    monkeypatch.setattr("cram.training.rank_report.gather_facts", lambda session: facts)
    monkeypatch.setattr(session.ranks, "size", 2)
    report = report_ranks(session, 150.0)
    assert (report["scaling_efficiency"], report["tokens_per_second"], report["waiting_seconds"]) == (0.75, 75.0, 2.5)
    assert report["devices"] == ["H200 on a", "H200 on a"]
