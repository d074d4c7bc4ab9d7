"""A remark for tables whose runs were trained on devices with different names."""

from collections.abc import Iterable, Mapping
from typing import Any


def describe_different_devices(devices: Iterable[tuple[str, Iterable[str]]]) -> str | None:
    """Say which arms were trained on which devices, and what then does not compare.

    Args:
        devices: names of arms, each with the manufacturers' names of the devices that its runs were trained on.

    Returns:
        Two sentences; None where all devices have one name.
    """
    arms: dict[str, dict[str, None]] = {}
    for arm, names in devices:
        for name in names:
            arms.setdefault(name, {})[arm] = None
    if len(arms) < 2:
        return None
    found = "; ".join(f"{name} ({', '.join(arms[name])})" for name in sorted(arms))
    return (
        f"The runs were trained on different devices: {found}. Their speeds do not compare, and their losses only "
        "where the budgets are in tokens or updates."
    )


def devices_of_receipt(receipt: Mapping[str, Any]) -> set[str]:
    """The names of all devices that a finished run was trained on, those before a resume among them."""
    names = [receipt.get("device"), *(process["device"] for process in receipt.get("processes", []))]
    return {str(name) for name in names if name}
