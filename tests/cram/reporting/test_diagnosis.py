from typing import Any

import pytest

from cram.reporting.diagnosis import explain_failure, explain_loss_above_unigram

RATES = {"optimizer.lr": 0.5, "optimizer.muon.lr": 0.02}
UNREMARKABLE: dict[str, Any] = {
    "updates": 1000,
    "positions": 1_000_000,
    "faults": {"skipped": 0, "lr_factor": 1.0},
    "data": {"vocab_size": 8192},
    "stalls": {"seconds": 0.0},
    "time": {"charged": {"updates": 90.0, "stalls": 0.0}},
}


def test_a_run_with_finite_weights_and_loss_did_not_fail() -> None:
    assert explain_failure(True, True, 10, 3, RATES) is None


@pytest.mark.parametrize(
    ("weights", "loss", "last_good", "text"),
    [
        (False, False, 7, "the weights are not finite; no loss or gradient was finite after update 7 of 10."),
        (
            False,
            True,
            10,
            "the weights are not finite; all losses and gradients were finite up to",
        ),
        (True, False, 0, "the held-out loss is not finite: the weights are, but too large; no loss or gradient"),
    ],
)
def test_a_failure_names_the_update_and_what_to_do(weights: bool, loss: bool, last_good: int, text: str) -> None:
    explanation = explain_failure(weights, loss, 10, last_good, RATES)
    assert explanation is not None and explanation.startswith(text)
    assert explanation.endswith("Lower optimizer.lr=0.5 and optimizer.muon.lr=0.02 and choose another run=.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"updates": 7}, "7 updates are few"),
        ({"positions": 8192}, "8,192 tokens are few, 1.0 for each entry of the vocabulary"),
        ({"faults": {"skipped": 101, "lr_factor": 1.0}}, "101 updates were left out because they were not finite"),
        (
            {"faults": {"skipped": 0, "lr_factor": 0.25}},
            "faults lowered the learning rate to 0.25 times its value",
        ),
        (
            {"stalls": {"seconds": 20.0}, "time": {"charged": {"updates": 80.0, "stalls": 20.0}}},
            "stalls took 20 s",
        ),
        ({}, "nothing in the receipt explains it; try lower or higher optimizer.lr=0.5 and optimizer.muon.lr=0.02"),
    ],
)
def test_each_reason_is_found_alone(change: dict[str, Any], reason: str) -> None:
    assert explain_loss_above_unigram(UNREMARKABLE | change, RATES) == reason


def test_all_reasons_are_given() -> None:
    assert explain_loss_above_unigram(UNREMARKABLE | {"updates": 3, "positions": 1536}, {"optimizer.lr": 0.0}) == (
        "optimizer.lr=0; 3 updates are few; 1,536 tokens are few, 0.2 for each entry of the vocabulary"
    )
