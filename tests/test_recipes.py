"""Every recipe can be read, built at full size on the meta device, and trained at a reduced size."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cram.build import check
from cram.config.config import Config
from cram.config.recipe import read_config, recipe_names
from cram.files.atomic import read_json
from cram.model.count import count_parameters
from cram.model.kinds import new_model
from cram.train import main
from tests.test_docs import PAGES, blocks


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_parses_and_builds_at_full_size(name: str) -> None:
    config = read_config([f"recipe={name}"])
    check(config)
    with torch.device("meta"):
        model = new_model(config.model, config.wordpiece.vocab_size)
    counted = count_parameters(config.model, config.wordpiece.vocab_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.total


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_takes_two_steps_at_a_reduced_size(
    name: str, tiny_run: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    small = [word for word in tiny_run(tmp_path) if not word.startswith("recipe=")]
    assert main([f"recipe={name}", *small, "batch.start_tokens=null", "budget=2steps"]) == 0
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["updates"] == 2


def test_crammed_bert_uses_the_shards_of_bert_24h() -> None:
    bert, crammed = read_config(["recipe=bert_24h"]), read_config(["recipe=crammed_bert"])
    crammed.data.order = bert.data.order  # an order is a file beside the shards
    assert (crammed.data, crammed.wordpiece, crammed.tokenizer) == (bert.data, bert.wordpiece, bert.tokenizer)


def test_gpt_demo_uses_the_shards_of_bert_demo() -> None:
    encoder, decoder = read_config(["recipe=bert_demo"]), read_config(["recipe=gpt_demo"])
    assert (decoder.data, decoder.wordpiece, decoder.tokenizer) == (encoder.data, encoder.wordpiece, encoder.tokenizer)


@pytest.mark.parametrize("name", recipe_names())
def test_the_prepared_tokens_are_enough_for_a_hundred_batches(name: str) -> None:
    config: Config = read_config([f"recipe={name}"])
    assert config.data.tokens is not None
    assert config.data.tokens > 100 * config.batch.tokens


def test_recipes_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    found = [block for page in PAGES for block in blocks(page, "yaml")]
    assert found
    for number, block in enumerate(found):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(block)
        read_config([f"recipe={recipe}"])
