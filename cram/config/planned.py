"""From a config with `model.size=auto` to one in which every number is given."""

from typing import Any

from cram.config.config import Config
from cram.config.consistency import check_config
from cram.config.plan import PLANNED_KEYS
from cram.config.schema import build_config, collect_keys, get_value

PREDICTIONS = tuple(name for name in collect_keys(Config) if name.startswith("plan.") and name != "plan.keep")


def give_values(config: Config, values: dict[str, Any]) -> Config:
    """Give a planned config its values, all but those of the keys in `plan.keep`.

    Args:
        config: with `model.size=auto`.
        values: of the keys `PLANNED_KEYS` and of predictions, by full name.

    Raises:
        CramError: where the values contradict keys that were kept.
    """
    kept = {name: get_value(config, name) for name in collect_keys(Config)}
    chosen = {name: value for name, value in values.items() if name not in config.plan.keep}
    given: Config = build_config(Config, kept | chosen | {"model.size": "given"})
    check_config(given)
    return given


def keep_plan(config: Config, begun: Config) -> Config:
    """Give a config with `model.size=auto` the plan of its run, which has begun."""
    return give_values(config, {name: get_value(begun, name) for name in (*PLANNED_KEYS, *PREDICTIONS)})
