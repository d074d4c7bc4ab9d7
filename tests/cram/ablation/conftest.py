"""A table of three arms."""

import pytest

from cram.ablation.table import AblationTable, Arm


@pytest.fixture
def table() -> AblationTable:
    """A baseline, another arm, and one with half of the budget; two seeds each."""
    return AblationTable(
        about="",
        budget="10m",
        seeds=2,
        baseline="old",
        words=["model.layers=2"],
        arms={
            "old": Arm(["recipe=crammed_bert"]),
            "new": Arm(["recipe=bert_demo", "optimizer.lr=3e-3"]),
            "half": Arm(["recipe=bert_demo"], budget_share=0.5),
        },
    )
