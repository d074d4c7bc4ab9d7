"""From a `model.kind` to its `StockModel`."""

from cram.config.choices import MODELS, load_target
from cram.hub.stock import StockModel


def find_stock_model(kind: str) -> StockModel | None:
    """The stock model of a `model.kind`; None if no class of `transformers` computes the kind."""
    target = MODELS[kind].stock
    if target is None:
        return None
    model: StockModel = load_target(target)
    return model


def stock_model(kind: str) -> StockModel:
    """The stock model of a `model.kind` that has one."""
    model = find_stock_model(kind)
    assert model is not None, kind
    return model


def why_not_exported(kind: str) -> str | None:
    """The reason why a model of this `model.kind` is not exported; None if it is."""
    return None if MODELS[kind].stock else f"transformers has no class that computes model.kind={kind}"


def exported_kinds() -> list[str]:
    """The values of `model.kind` that can be exported."""
    return [kind for kind, choice in MODELS.items() if choice.stock]
