"""Why a run came to little or nothing, told from its figures."""

from typing import Any

# Fewer updates, or positions per entry of the vocabulary, hardly teach how frequent each token is.
FEW_UPDATES, FEW_POSITIONS = 100, 20
LARGE_SHARE = 0.1


def failure(
    weights_finite: bool, loss_finite: bool, updates: int, last_good: int, rates: dict[str, float]
) -> str | None:
    """Why a run has no usable model, and what to do; None where it has one.

    Args:
        weights_finite, loss_finite: of the final weights, and of the held-out loss.
        last_good: the last update whose loss and gradient were finite, 0 if none was.
        rates: the config's learning rates, by key.
    """
    if weights_finite and loss_finite:
        return None
    if not weights_finite:
        what = "the weights are not finite"
    else:
        what = "the held-out loss is not finite: the weights are, but too large"
    if last_good < updates:
        when = f"no loss or gradient was finite after update {last_good} of {updates}"
    else:
        when = f"all losses and gradients were finite up to the last update, {updates}"
    return f"{what}; {when}. Lower {_named(rates)} and choose another run=."


def _named(rates: dict[str, float]) -> str:
    return " and ".join(f"{key}={rate:g}" for key, rate in rates.items())


def why_not_below_unigram(receipt: dict[str, Any], rates: dict[str, float]) -> str:
    """What in a receipt explains a held-out loss at or above the unigram baseline.

    Args:
        rates: the config's learning rates, by key.
    """
    updates, positions, faults, stalls = (receipt[name] for name in ("updates", "positions", "faults", "stalls"))
    skipped, factor, stalled = faults["skipped"], faults["lr_factor"], stalls["seconds"]
    each = positions / receipt["data"]["vocab_size"]
    reasons = (
        (not any(rates.values()), _named(rates)),
        (updates < FEW_UPDATES, f"{updates:,} updates are few"),
        (each < FEW_POSITIONS, f"{positions:,} tokens are few, {each:.1f} for each entry of the vocabulary"),
        (
            skipped > LARGE_SHARE * updates,
            f"{skipped:,} updates were left out because they were not finite",
        ),
        (factor < 1.0, f"faults lowered the learning rate to {factor:g} times its value"),
        (stalled > LARGE_SHARE * sum(receipt["time"]["charged"].values()), f"stalls took {stalled:.0f} s"),
    )
    found = [reason for holds, reason in reasons if holds]
    return "; ".join(found) or f"nothing in the receipt explains it; try lower or higher {_named(rates)}"
