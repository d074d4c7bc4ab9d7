"""The devices that several pieces of work run on side by side, as the key `devices` of a command names them."""

import re
from collections.abc import Sequence

import torch

from cram.errors import CramError
from cram.machine.device import find_device, pick_precision, precision_name

ENTRY = re.compile(r"cpu|(cuda:)?(?P<number>\d{1,9})", re.ASCII)
EXAMPLES = "Use numbers of GPUs, such as devices=[0,1], or the CPU several times, as in devices=[cpu,cpu]."


def find_devices(entries: Sequence[str]) -> list[str]:
    """Return the word for `device=` of each entry of `devices=`, without taking any memory on a GPU.

    Args:
        entries: numbers of GPUs, as `1` or `cuda:1`, each once; or `cpu`, once or several times.

    Returns:
        `cuda:N` or `cpu` for each entry, in their order.

    Raises:
        CramError: the list is empty, names a GPU twice or GPUs beside the CPU, or has an entry that is not valid, or
            that torch does not find here.
    """
    given = format_devices(entries)
    if not entries:
        raise CramError(f"{given} names no device. {EXAMPLES}")
    matches = [ENTRY.fullmatch(entry) for entry in entries]
    for entry, match in zip(entries, matches, strict=True):
        if not match:
            raise CramError(f"{given}: {entry or 'an empty entry'} is not a valid device. {EXAMPLES}")
    numbers = [int(match["number"]) for match in matches if match and match["number"]]
    if numbers and len(numbers) < len(entries):
        raise CramError(f"{given} mixes GPUs with the CPU. Their figures would not compare: name only one kind.")
    for number in numbers:
        if numbers.count(number) > 1:
            raise CramError(f"{given} names GPU {number} twice. Name each GPU once.")
    names = [f"cuda:{number}" for number in numbers] or ["cpu"] * len(entries)
    try:
        for name in dict.fromkeys(names):
            find_device(name)
    except CramError as error:
        raise CramError(f"{given}: {error}") from None
    return names


def format_devices(entries: Sequence[str]) -> str:
    """Return the word of the command line that names the entries: `devices=[0,1]`."""
    return f"devices=[{','.join(entries)}]"


def common_precision(name: str, devices: Sequence[str]) -> torch.dtype:
    """Return the autocast dtype for `precision=name` on devices whose figures are to be the same.

    Args:
        name: word of the key `precision`.
        devices: words of the key `device`.

    Raises:
        CramError: `auto` is not the same on all devices.
    """
    chosen = {device: pick_precision(name, find_device(device)) for device in devices}
    if len(set(chosen.values())) > 1:
        found = ", ".join(f"{precision_name(precision)} on {device}" for device, precision in chosen.items())
        raise CramError(f"precision={name} is {found}. Give the one that all are to use, such as precision=fp16.")
    return chosen[devices[0]]
