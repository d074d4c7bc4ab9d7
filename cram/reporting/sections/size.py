"""The size of a run's model, and where its parameters are: by layer and by kind."""

import re
from collections import defaultdict

from cram.reporting.page.blocks import Block, Cell, Column, Facts, Fold, Picture, Section, Table, Text
from cram.reporting.pictures.shares import draw_shares
from cram.reporting.reading.runs import RunData
from cram.reporting.reading.weights import Weights, read_weights
from cram.reporting.sections.formats import count, format_bytes, format_flops, format_large, format_share, format_whole

_BLOCK = re.compile(r"^(?P<part>(?:.*\.)?blocks\.\d+)\.(?P<rest>.+)$")
_WORDS = {
    "attention": "attention",
    "mlp": "MLP",
    "recurrent": "recurrent",
    "input": "recurrent",
    "embedding": "embedding",
    "position": "embedding",
}
KINDS = ("embedding", "attention", "MLP", "recurrent", "norms", "head", "other")


def classify(name: str) -> tuple[str, str]:
    """Tell which part of a model a tensor belongs to, and its kind.

    Args:
        name: of the tensor, such as `blocks.0.mlp.up.weight`.

    Returns:
        The part, such as `blocks.0`, and one of `KINDS`.
    """
    block = _BLOCK.match(name)
    part = block["part"] if block else name.rpartition(".")[0] or name
    rest = block["rest"] if block else name
    if "norm" in rest:
        return part, "norms"
    if "head" in rest:
        return part, "head"
    return part, next((kind for word, kind in _WORDS.items() if word in rest), "other")


def size_section(run: RunData) -> Section:
    """The size of a run's model.

    Raises:
        CramError: its weights are not a readable safetensors file.
    """
    weights = read_weights(run)
    blocks: list[Block] = [Facts(_facts(run, weights))]
    if weights is None:
        blocks.append(Text("No weights have been saved yet.", "note"))
    else:
        blocks += [_picture(weights), Fold("Parameters by layer", [_table(run, weights)])]
    return Section("model", "Size of the model", blocks)


def _facts(run: RunData, weights: Weights | None) -> list[tuple[str, str]]:
    model = run.config.model
    facts = [("kind", model.kind), ("blocks", f"{model.layers} of width {format_whole(model.width)}")]
    facts.append(("of each block", f"{count(model.heads, 'head')}, MLP of width {format_whole(model.mlp_width)}"))
    parameters = run.figure("model", "parameters")
    if parameters is None and weights is not None:
        parameters = weights.parameters
    if parameters is not None:
        facts.append(("parameters", format_whole(parameters)))
    if (without := run.figure("model", "parameters_without_embedding")) is not None:
        facts.append(("without the embedding", format_whole(without)))
    if (flops := run.figure("model", "flops_per_position")) is not None:
        facts.append(("operations for each token, forward and backward", format_flops(flops)))
    if weights is not None:
        dtypes = ", ".join(sorted({tensor.dtype for tensor in weights.tensors}))
        facts.append(("file of the weights", f"{format_bytes(weights.bytes)}, {dtypes}"))
    return facts


def _picture(weights: Weights) -> Picture:
    sums: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for tensor in weights.tensors:
        sums[classify(tensor.name)[1]] += tensor.parameters
    told = {kind: value for kind, value in sums.items() if value}
    total = max(weights.parameters, 1)
    return Picture(
        title="Parameters by kind",
        svg=draw_shares("parameters", [("parameters", told)], "parameters", format_large),
        description="; ".join(
            f"{kind}: {format_whole(value)}, {format_share(value / total)}" for kind, value in told.items()
        ),
    )


def _table(run: RunData, weights: Weights) -> Table:
    """Parameters by part of the model and kind, in the order of the model."""
    parts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for tensor in sorted(weights.tensors, key=lambda tensor: _natural(tensor.name)):
        part, kind = classify(tensor.name)
        parts[part][kind] += tensor.parameters
    kinds = [kind for kind in KINDS if any(kind in numbers for numbers in parts.values())]
    total = max(weights.parameters, 1)
    rows = []
    for number, (part, numbers) in enumerate(parts.items()):
        of_part = sum(numbers.values())
        cells = [Cell(format_whole(numbers[kind]) if kind in numbers else "", numbers.get(kind, 0)) for kind in kinds]
        share = Cell(format_share(of_part / total), of_part)
        rows.append([Cell(part, number), *cells, Cell(format_whole(of_part), of_part), share])
    columns = [Column("part"), *(Column(kind, numeric=True) for kind in (*kinds, "all", "share"))]
    counted = run.figure("model", "parameters")
    note = ""
    if counted is not None and counted != weights.parameters:
        note = f"The file holds {format_whole(weights.parameters)} numbers, the model counts {format_whole(counted)}."
    return Table(columns, rows, note=note)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort `blocks.10` behind `blocks.9`, and the embedding before the blocks."""
    order = 0 if name.startswith("embedding") or "position" in name else 2 if "head" in name or "final" in name else 1
    return [(order, ""), *((int(word), "") if word.isdigit() else (0, word) for word in name.split("."))]
