"""The text of `--help`."""

import pytest

from cram.config.commands import AblateConfig, EvaluateConfig, ExportConfig, GlueConfig, ShardsConfig
from cram.config.config import Config
from cram.config.help import COLUMNS, help_text
from cram.config.recipe import read_config, recipe_names
from cram.config.schema import collect_keys


@pytest.mark.parametrize("schema", [Config, ShardsConfig, EvaluateConfig, ExportConfig, AblateConfig, GlueConfig])
def test_every_key_is_printed_once_and_no_line_is_too_long(schema: type) -> None:
    lines = help_text(schema).splitlines()
    for name in collect_keys(schema):
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1
    assert max(map(len, lines)) <= COLUMNS == 120


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_shows_its_own_values_beside_the_defaults(name: str) -> None:
    config = read_config([f"recipe={name}"])
    lines = help_text(Config, config).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    (layers,) = [line for line in lines if line.startswith("  model.layers ")]
    assert f" {config.model.layers} " in layers
    assert ("(default 12)" in layers) == (config.model.layers != 12)


def test_types_units_ranges_and_choices_are_printed() -> None:
    text = " ".join(help_text(Config).split())
    for part in (
        "optimizer.clip float or null 1.0 scale gradients down to this global norm (null: no clipping) [above 0]",
        "linear | cosine | triangle | trapezoid | budget-triangle2: shape of the learning rate",
        "[share of the budget; at least 0, below 1]",
    ):
        assert part in text
    (arms,) = [line for line in help_text(AblateConfig).splitlines() if line.startswith("  arms ")]
    assert arms.split()[1:5] == ["list", "of", "text", "[]"]
