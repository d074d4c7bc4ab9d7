"""Where the parameters of a model are: kinds and parts by the names of tensors, and the figures of the receipt."""

from pathlib import Path

import pytest

from cram.config.choices import MODELS
from cram.config.model import ModelConfig
from cram.model.count import count_parameters
from cram.model.kinds import new_model
from cram.reporting.page.blocks import Facts, Fold, Picture, Section, Table
from cram.reporting.reading.runs import read_run
from cram.reporting.sections.size import classify, size_section
from tests.cram.reporting.written_runs import usual_receipt, write_run


def table(section: Section) -> Table:
    (fold,) = (block for block in section.blocks if isinstance(block, Fold))
    (found,) = (block for block in fold.blocks if isinstance(block, Table))
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedding.weight", ("embedding", "embedding")),
        ("positions.weight", ("positions", "embedding")),
        ("blocks.11.attention.qkv.weight", ("blocks.11", "attention")),
        ("blocks.0.attention.q_norm.weight", ("blocks.0", "norms")),
        ("blocks.0.mlp.up.weight", ("blocks.0", "MLP")),
        ("generator.blocks.2.mlp.up.weight", ("generator.blocks.2", "MLP")),
        ("final_norm.weight", ("final_norm", "norms")),
        ("head.dense.weight", ("head.dense", "head")),
        ("discriminator_head.out.bias", ("discriminator_head.out", "head")),
        ("blocks.0.recurrent.weight", ("blocks.0", "recurrent")),
        ("blocks.0.bias", ("blocks.0", "other")),
    ],
)
def test_names_tell_part_and_kind(name: str, expected: tuple[str, str]) -> None:
    assert classify(name) == expected


@pytest.mark.parametrize("kind", MODELS)
def test_hardly_anything_of_a_model_is_of_no_kind(kind: str) -> None:
    config = ModelConfig(kind=kind, layers=2, width=16, heads=2, mlp_width=32)
    tensors = new_model(config, 64).state_dict()
    other = sum(tensor.numel() for name, tensor in tensors.items() if classify(name)[1] == "other")
    assert other <= 0.05 * count_parameters(config, 64).total


def test_the_table_and_the_facts(tmp_path: Path) -> None:
    section = size_section(read_run(write_run(tmp_path / "a")))
    found = table(section)
    assert [column.name for column in found.columns] == [
        "part",
        "embedding",
        "attention",
        "MLP",
        "norms",
        "all",
        "share",
    ]
    assert [[cell.text for cell in row] for row in found.rows] == [
        ["embedding", "512", "", "", "", "512", "49.2%"],
        ["blocks.0", "", "256", "256", "8", "520", "50.0%"],
        ["final_norm", "", "", "", "8", "8", "0.8%"],
    ]
    assert found.note == "The file holds 1,040 numbers, the model counts 912."
    (facts,) = (block for block in section.blocks if isinstance(block, Facts))
    assert dict(facts.facts)["operations for each token, forward and backward"] == "1 MFLOP"


def test_a_count_that_agrees_has_no_note(tmp_path: Path) -> None:
    receipt = usual_receipt() | {"model": {"parameters": 1040}}
    assert table(size_section(read_run(write_run(tmp_path / "a", receipt=receipt)))).note == ""


def test_the_picture_is_told_in_words(tmp_path: Path) -> None:
    section = size_section(read_run(write_run(tmp_path / "a", finished=False)))
    (picture,) = (block for block in section.blocks if isinstance(block, Picture))
    assert picture.description.startswith("embedding: 512, 49.2%")
    assert "<svg" in picture.svg
