"""The ladder holds shapes that can be trained, keeps what the user fixed, and has sensible proportions."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.config import Config
from cram.config.consistency import check_config
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.planner.ladder import Pins, shape_ladder, usual_mlp_width
from cram.planner.shape import Shape

RECIPES = {"encoder": "bert_demo", "decoder": "gpt_demo", "crammed": "crammed_bert"}
CONFIGS = {kind: read_config([f"recipe={name}"]) for kind, name in RECIPES.items()}


def pinned_or_free(least: int, most: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(least, most)


@given(
    kind=st.sampled_from(list(RECIPES)),
    device_type=st.sampled_from(["cpu", "cuda"]),
    seq_len=st.integers(1, 4096),
    pins=st.builds(
        Pins,
        pinned_or_free(1, 1000),
        pinned_or_free(1, 2048),
        pinned_or_free(1, 16),
        pinned_or_free(1, 4096),
        pinned_or_free(1, 10**6),
    ),
)
def test_every_shape_can_be_trained_and_has_what_is_fixed(
    kind: str, device_type: str, seq_len: int, pins: Pins
) -> None:
    try:
        ladder = shape_ladder(kind, device_type, seq_len, pins)
    except CramError as error:
        assert str(error).count("unknown shape") == 1
        return
    assert ladder
    assert len(set(ladder)) == len(ladder)
    for shape in ladder:
        config: Config = shape.apply(CONFIGS[kind])
        check_config(config)
        assert Shape.of(config) == shape
        fixed = {name: value for name, value in asdict(pins).items() if value is not None}
        assert asdict(shape) | fixed == asdict(shape)
        assert pins.batch_tokens or shape.batch_tokens >= seq_len


@pytest.mark.parametrize(("kind", "seq_len"), [("encoder", 128), ("decoder", 128), ("crammed", 128)])
@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_proportions_are_those_of_the_recipes(kind: str, seq_len: int, device_type: str) -> None:
    ladder = shape_ladder(kind, device_type, seq_len)
    assert all(16 <= shape.width / shape.layers <= 128 for shape in ladder)
    assert all(shape.width // shape.heads == 64 for shape in ladder if shape.width >= 256)
    assert all(shape.width // shape.heads == 16 for shape in ladder if shape.width < 256)
    assert {shape.layers for shape in ladder} >= ({2, 3, 4, 6} if device_type == "cpu" else {4, 12, 28})


@pytest.mark.parametrize("name", ["bert_10m", "bert_1h"])
def test_the_recipes_are_on_the_ladder(name: str) -> None:
    config = read_config([f"recipe={name}"])
    assert Shape.of(config) in shape_ladder(config.model.kind, "cuda", config.data.seq_len)


def test_a_decoder_has_a_wider_mlp() -> None:
    assert [usual_mlp_width("decoder", width) for width in (32, 192, 768)] == [128, 512, 2048]
    assert [usual_mlp_width("encoder", width) for width in (32, 192, 768)] == [64, 384, 1536]


def test_a_row_longer_than_every_batch_is_a_batch() -> None:
    assert {shape.batch_tokens for shape in shape_ladder("decoder", "cpu", 100_000)} == {100_000}


def test_where_no_aspect_ratio_is_sensible_the_nearest_is_taken() -> None:
    assert {shape.layers for shape in shape_ladder("encoder", "cpu", 128, Pins(width=2048))} == {8}
    assert {shape.width for shape in shape_ladder("encoder", "cpu", 128, Pins(layers=100))} == {512}


@pytest.mark.parametrize(
    ("kind", "pins", "message"),
    [
        ("encoder", Pins(width=33), "model.width=33 is an unknown shape for model.kind=encoder: choose an even width."),
        (
            "decoder",
            Pins(width=96, heads=7),
            "model.width=96 with model.heads=7 is an unknown shape for model.kind=decoder: "
            "choose a width that is a multiple of the heads, so that each head has an even width.",
        ),
        (
            "crammed",
            Pins(heads=11),
            "model.heads=11 is an unknown shape for model.kind=crammed: "
            "choose a width that is a multiple of the heads.",
        ),
    ],
)
def test_a_shape_that_no_model_has_is_refused(kind: str, pins: Pins, message: str) -> None:
    with pytest.raises(CramError) as error:
        shape_ladder(kind, "cpu", 128, pins)
    assert str(error.value) == message


def test_fixing_everything_leaves_one_shape() -> None:
    shape = Shape(5, 100, 5, 77, 999)
    assert shape_ladder("encoder", "cuda", 128, Pins(**asdict(shape))) == [shape]
    assert shape_ladder("encoder", "cpu", 128, replace(Pins(), layers=2, width=64, batch_tokens=512)) == [
        Shape(2, 64, 4, 128, 512)
    ]


@given(st.sampled_from(["cpu", "cuda"]), st.integers(1, 4096), st.integers(2, 12))
def test_several_ranks_share_each_update_evenly(device_type: str, seq_len: int, ranks: int) -> None:
    ladder = shape_ladder("encoder", device_type, seq_len, ranks=ranks)
    assert ladder
    assert len(set(ladder)) == len(ladder)
    assert all(shape.batch_tokens % (ranks * seq_len) == 0 for shape in ladder)
