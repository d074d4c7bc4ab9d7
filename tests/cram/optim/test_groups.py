import pytest
from torch import nn

from cram.config.model import ModelConfig
from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.model.encoder import Encoder
from cram.model.layers import LayerNorm
from cram.optim.groups import ParameterGroup, parameter_groups

CONFIG = OptimizerConfig(lr=0.5, embedding_lr=0.25, weight_decay=0.125)


def members(groups: list[ParameterGroup]) -> dict[str, set[int]]:
    """The parameters of each group, as identities."""
    return {group.name: {id(parameter) for parameter in group.parameters} for group in groups}


def encoder() -> Encoder:
    return Encoder(ModelConfig(layers=2, width=8, heads=2, mlp_width=8), 64)


def test_every_parameter_of_the_encoder_is_in_one_group_and_named() -> None:
    model = encoder()
    groups = parameter_groups(model, CONFIG)
    pairs = [pair for group in groups for pair in group.named()]
    assert len(pairs) == len({name for name, _ in pairs}) == len({id(parameter) for _, parameter in pairs})
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in pairs)
    assert len(pairs) == len(list(model.parameters()))


def test_the_encoder_is_split_by_what_its_parameters_do() -> None:
    model = encoder()
    ids = members(parameter_groups(model, CONFIG))
    assert ids["embeddings"] == {id(model.embedding.weight)}
    assert ids["gains"] == {id(module.weight) for module in model.modules() if isinstance(module, LayerNorm)}
    assert ids["matrices"] == {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}


def test_names_of_modules_do_not_matter() -> None:
    linear, norm, embedding = nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(4, 4)
    honest = nn.ModuleDict({"linear": linear, "norm": norm, "embedding": embedding})
    lying = nn.ModuleDict({"norm": linear, "embedding": norm, "linear_bias": embedding})
    expected = {
        "matrices": {id(linear.weight)},
        "embeddings": {id(embedding.weight)},
        "gains": {id(linear.bias), id(norm.weight), id(norm.bias)},
    }
    assert members(parameter_groups(honest, CONFIG)) == expected
    assert members(parameter_groups(lying, CONFIG)) == expected


@pytest.mark.parametrize("first", ["embedding", "linear"])
def test_a_tied_weight_is_listed_once_with_the_first_module(first: str) -> None:
    embedding, linear = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
    linear.weight = embedding.weight
    groups = parameter_groups(
        nn.Sequential(*([embedding, linear] if first == "embedding" else [linear, embedding])), CONFIG
    )
    name = "embeddings" if first == "embedding" else "matrices"
    assert members(groups) == {name: {id(embedding.weight)}}
    assert groups[0].names == ["0.weight"]


def test_a_parameter_outside_of_any_known_module_is_a_gain() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(nn.Linear(4, 4).weight.detach())

    model = Scaled()
    assert members(parameter_groups(model, CONFIG)) == {"gains": {id(model.scale)}}


def test_only_matrices_are_decayed_and_the_embedding_has_its_own_rate() -> None:
    groups = {group.name: group for group in parameter_groups(encoder(), CONFIG)}
    assert {name: group.peak_lr for name, group in groups.items()} == {
        "matrices": 0.5,
        "embeddings": 0.25,
        "gains": 0.5,
    }
    assert {name: group.weight_decay for name, group in groups.items()} == {
        "matrices": 0.125,
        "embeddings": 0.0,
        "gains": 0.0,
    }


def test_the_embedding_has_the_common_rate_unless_it_has_its_own_even_zero() -> None:
    for embedding_lr, expected in ((None, 0.5), (0.0, 0.0)):
        groups = parameter_groups(encoder(), OptimizerConfig(lr=0.5, embedding_lr=embedding_lr))
        assert {group.name: group.peak_lr for group in groups}["embeddings"] == expected


def test_the_embedding_has_its_own_decay_if_it_is_given() -> None:
    for changes, expected in (({"embedding_decay": 0.5}, 0.5), ({"embedding_decay": 0.0, "decay_others": True}, 0.0)):
        groups = {group.name: group for group in parameter_groups(encoder(), OptimizerConfig(**changes))}
        assert groups["embeddings"].weight_decay == expected
        assert groups["gains"].weight_decay == (0.01 if "decay_others" in changes else 0.0)


def test_under_muon_the_matrices_have_its_rate_and_decay() -> None:
    muon = OptimizerConfig(
        kind="muon", lr=0.5, embedding_lr=0.25, weight_decay=0.125, muon=MuonConfig(lr=0.75, weight_decay=0.0625)
    )
    model = encoder()
    groups = {group.name: group for group in parameter_groups(model, muon)}
    assert members(list(groups.values())) == members(parameter_groups(model, CONFIG))
    assert {name: (group.peak_lr, group.weight_decay) for name, group in groups.items()} == {
        "matrices": (0.75, 0.0625),
        "embeddings": (0.25, 0.0),
        "gains": (0.5, 0.0),
    }


def test_a_fused_weight_has_the_rows_of_its_matrices() -> None:
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 12), nn.Linear(4, 4))
    model[1].splits = (4, 8)
    groups = parameter_groups(model, CONFIG)
    splits = {name: rows for group in groups for name, rows in zip(group.names, group.splits, strict=True)}
    assert splits == {"0.weight": (), "1.weight": (4, 8), "1.bias": (), "2.weight": (), "2.bias": ()}
