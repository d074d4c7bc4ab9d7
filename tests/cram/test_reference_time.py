"""Reference system time: tables, counts, and a clock that follows them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.budget import Budget
from cram.build import check
from cram.clock import Clock
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.reference_time import ExecutedWork, ReferenceTime, ReferenceTimeTable, load_table, table_names

SECONDS = {
    "training": {"1": 0.2, "2": 0.3, "4": 0.5},
    "forward": {"4": 0.2},
    "optimizer": {"adamw/2": 0.01, "adamw/4": 0.02},
}
TABLE: dict[str, Any] = {
    "machine": "made up",
    "model": {"width": 16},
    "seq_len": 8,
    "micro_rows": 4,
    "seconds": SECONDS,
}


def write(folder: Path, **changes: Any) -> str:
    path = folder / "table.json"
    path.write_text(json.dumps(TABLE | changes))
    return str(path)


def test_a_budget_is_spent_by_what_was_executed() -> None:
    work = ExecutedWork()
    time = ReferenceTime(ReferenceTimeTable(**TABLE), work)
    work.add_pass("training", 4, 10)  # two and a half micro-batches
    work.add_pass("training", 0, 4)  # without blocks: as one block
    work.add_step("adamw", 4)
    work.add_pass("forward", 4, 8, overhead=True)
    assert time.seconds() == pytest.approx(2.5 * 0.5 + 0.2 + 0.02 + 2 * 0.2)
    assert ReferenceTime(time.table, work, overheads=False).seconds() == pytest.approx(2.5 * 0.5 + 0.2 + 0.02)


def test_steps_cost_nothing_where_a_table_has_none() -> None:
    table = ReferenceTimeTable(**TABLE | {"seconds": {"training": {"4": 0.5}}})
    assert table.unit_seconds("optimizer", "lion/4") == 0.0


def test_counts_are_the_same_after_a_checkpoint() -> None:
    work, resumed = ExecutedWork(), ExecutedWork()
    work.add_pass("training", 4, 10)
    work.as_overhead().add_pass("training", 2, 6)
    work.as_overhead().add_step("adamw", 2)
    assert work.state()["overhead"] == {"optimizer": {"adamw/2": 1}, "training": {"2": 6}}
    resumed.add_pass("forward", 1, 1)
    resumed.load(json.loads(json.dumps(work.state())))
    resumed.add_pass("training", 4, 1)
    work.add_pass("training", 4, 1)
    assert resumed.state() == work.state()


@given(rows=st.lists(st.integers(1, 50), min_size=1, max_size=30), limit=st.floats(1.0, 50.0))
def test_a_run_ends_within_half_an_update_of_its_reference_time(rows: list[int], limit: float) -> None:
    work = ExecutedWork()
    clock = Clock(Budget("rst", limit), reference=ReferenceTime(ReferenceTimeTable(**TABLE), work))
    clock.learn_reference_pace(clock.reference.table.pace(4))  # type: ignore[union-attr]
    progress, before, costs = 0.0, 0.0, []
    clock.begin_updates()
    while progress < 1.0:
        progress = clock.progress_after(32)
        work.add_pass("training", 4, 4)
        work.add_step("adamw", 4)
        clock.count_update(32)
        costs.append(clock.spent() - before)
        before = clock.spent()
    assert abs(clock.spent() - limit) <= 0.5 * max(costs) + 0.02 + 1e-9


def test_tables_that_come_with_cram_can_be_loaded() -> None:
    for name in table_names():
        assert load_table(name).seconds["training"]


def test_the_published_table_is_as_printed_but_for_the_wrong_entry() -> None:
    table = load_table("rtx3090_crammed")
    printed = ".02521 .03837 .05177 .06508 .07847 .09188 .01052 .1186 .1319 .1454 .1589 .1722 .1857 .1988 .212 .2253"
    seconds = dict(enumerate(map(float, printed.split()), 1)) | {7: 0.1052}
    assert table.seconds == {
        "training": {str(blocks): entry for blocks, entry in seconds.items()},
        "forward": {"16": 0.09285},
    }
    assert seconds[7] == pytest.approx((seconds[6] + seconds[8]) / 2, rel=0.01)
    assert "0.01052, ten times too small" in table.note
    # A day of updates of 1536 rows, as the authors' own budget gave it.
    assert 24 * 3600 / (12 * table.unit_seconds("training", "16")) == pytest.approx(31_957, abs=1)


def test_the_published_table_is_for_runs_of_crammed_bert() -> None:
    words = ["recipe=crammed_bert", "device=cpu", "budget=rst:24h", "rst.table=rtx3090_crammed"]
    for method in ("seed=0", "selective.beta=1", "rho.keep=0.5", "stacking.layers=4", "dropping.theta=0.5"):
        check(read_config([*words, method]))
    with pytest.raises(CramError, match=r"no entry forward for 4 blocks; it has: 16\. Measure a table of your own"):
        check(read_config([*words, "rho.keep=0.5", "rho.reference_layers=4"]))
    check(read_config([*words, "rho.keep=0.5", "rho.reference_layers=4", "rst.overheads=false"]))
    with pytest.raises(CramError, match=r"NVIDIA RTX 3090 is for model\.kind=crammed, not encoder"):
        check(read_config([*words, "model.kind=encoder"]))
    with pytest.raises(CramError, match=r"no entry training for 17 blocks"):
        check(read_config([*words, "model.layers=17"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"seconds": {"training": {"1": 0.2, "2": 0.02}}},
            "the table of made up is not monotonic: training of 2 blocks takes 0.02 s, and of 1 blocks 0.2 s",
        ),
        ({"seconds": {"training": {"1": -1.0}}}, "not a table of reference times (seconds, micro_rows and seq_len"),
        ({"unknown": 1}, "not a table of reference times"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CramError, match=re.escape(message)):
        load_table(write(tmp_path, **changes))


def test_a_missing_entry_or_table_is_named() -> None:
    table = ReferenceTimeTable(**TABLE)
    with pytest.raises(CramError, match=r"the table of made up has no entry training for 3 blocks; it has: 1, 2, 4"):
        table.unit_seconds("training", "3")
    with pytest.raises(CramError, match=r"no entry optimizer for muon with 4 blocks"):
        table.unit_seconds("optimizer", "muon/4")
    with pytest.raises(CramError, match=r"rst.table=nothing is unknown. Tables: "):
        load_table("nothing")
