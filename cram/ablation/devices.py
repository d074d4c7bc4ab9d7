"""The places where the runs of a table are trained at the same time: one a device, or `jobs` of the table's words."""

from collections.abc import Iterable, Sequence

from cram.ablation.table import AblationTable
from cram.config.commands import AblateConfig
from cram.errors import CramError

DEVICE = "device="


def choose_devices(config: AblateConfig, table: AblationTable, recipe_words: Iterable[str]) -> list[str] | None:
    """Choose the devices that `devices=` names, one for each run that is trained at the same time.

    Args:
        table: whose arms are trained.
        recipe_words: for every arm, from the command line.

    Returns:
        The word for `device=` of each; None where `devices=` is not given.

    Raises:
        CramError: a device is not valid or not there, or another word asks for something else.
    """
    if config.devices is None:
        return None
    if config.jobs is not None:
        raise CramError(
            f"jobs={config.jobs}: devices= trains as many runs at the same time as it names devices. "
            "Leave one of the two out."
        )
    for word in recipe_words:
        if word.startswith(DEVICE):
            raise CramError(f"{word}: devices= gives each run its device. Leave one of the two out.")
    for kind, group in (("arm", table.arms), ("column", table.columns)):
        for name, content in group.items():
            if chosen := [word for word in content.words if word.startswith(DEVICE)]:
                raise CramError(
                    f"{kind} {name} of the table has {chosen[0]}, and devices= gives each run its device. "
                    "Leave devices= out, or the word in the table."
                )
    from cram.machine.device_list import find_devices  # imports torch, which takes seconds

    return find_devices(config.devices)


def describe_devices(names: Sequence[str]) -> str | None:
    """Say which devices have different names, because time on one is not time on another; None where all are the same.

    Args:
        names: as for `device=`.
    """
    from cram.machine.device import device_name, find_device

    models = {name: device_name(find_device(name)) for name in names}
    if len(set(models.values())) == 1:
        return None
    found = ", ".join(f"{name} is {model}" for name, model in models.items())
    return f"The devices differ: {found}. Arms with budgets in time do not compare unless all run on the same kind."
