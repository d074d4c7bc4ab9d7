"""Explain from a run's figures why it failed, or why its loss is not below the unigram baseline."""

from typing import Any

# Fewer updates, or fewer positions for each entry of the vocabulary, hardly teach how frequent each token is.
FEW_UPDATES, FEW_POSITIONS = 100, 20
LARGE_SHARE = 0.1


def explain_failure(
    weights_finite: bool, loss_finite: bool, updates: int, last_good: int, rates: dict[str, float]
) -> str | None:
    """Explain why a run has no usable model, and what to do.

    Args:
        weights_finite: whether the final weights are finite.
        loss_finite: whether the held-out loss is finite.
        updates: their number.
        last_good: number of the last update whose loss and gradient were finite; 0 if none was.
        rates: the config's learning rates, by key.

    Returns:
        None for a run that has a usable model.
    """
    if weights_finite and loss_finite:
        return None
    if not weights_finite:
        symptom = "the weights are not finite"
    else:
        symptom = "the held-out loss is not finite: the weights are, but too large"
    if last_good < updates:
        time = f"no loss or gradient was finite after update {last_good} of {updates}"
    else:
        time = f"all losses and gradients were finite up to the last update, {updates}"
    return f"{symptom}; {time}. Lower {_format_rates(rates)} and choose another run=."


def _format_rates(rates: dict[str, float]) -> str:
    return " and ".join(f"{key}={rate:g}" for key, rate in rates.items())


def explain_loss_above_unigram(receipt: dict[str, Any], rates: dict[str, float]) -> str:
    """Explain a held-out loss at or above the unigram baseline by everything in the receipt that may cause it.

    Args:
        receipt: of the run.
        rates: the config's learning rates, by key.
    """
    updates, positions, faults, stalls = (receipt[name] for name in ("updates", "positions", "faults", "stalls"))
    skipped, lr_factor, stalled_seconds = faults["skipped"], faults["lr_factor"], stalls["seconds"]
    charged_seconds = sum(receipt["time"]["charged"].values())
    positions_per_entry = positions / receipt["data"]["vocab_size"]
    causes = (
        (not any(rates.values()), _format_rates(rates)),
        (updates < FEW_UPDATES, f"{updates:,} updates are few"),
        (
            positions_per_entry < FEW_POSITIONS,
            f"{positions:,} tokens are few, {positions_per_entry:.1f} for each entry of the vocabulary",
        ),
        (skipped > LARGE_SHARE * updates, f"{skipped:,} updates were left out because they were not finite"),
        (lr_factor < 1.0, f"faults lowered the learning rate to {lr_factor:g} times its value"),
        (stalled_seconds > LARGE_SHARE * charged_seconds, f"stalls took {stalled_seconds:.0f} s"),
    )
    reasons = [reason for applies, reason in causes if applies]
    return "; ".join(reasons) or f"nothing in the receipt explains it; try lower or higher {_format_rates(rates)}"
