"""The ladder: the shapes among which a plan chooses.

Layers, widths and batch sizes are combined freely, except that the aspect ratio, width divided by layers, stays within
`ASPECT`. The loss depends on the number of parameters and hardly on how they are arranged (arXiv:2001.08361, figure 5),
but only within such a range: a single block cannot attend to what an earlier block has found, and many narrow blocks
are slow.
"""

import math
from dataclasses import dataclass

from cram.config.choices import MODELS
from cram.errors import CramError
from cram.planner.shape import Shape

ASPECT = (16, 128)
HEAD_WIDTH, NARROW_HEAD_WIDTH = 64, 16
NARROW = 256  # models below this width have narrow heads: several heads begin to learn earlier than one or two
MLP_MULTIPLE = 64


@dataclass(frozen=True)
class Pins:
    """What the user has fixed of a shape; None for what the plan may choose. The fields are those of `Shape`."""

    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    batch_tokens: int | None = None


@dataclass(frozen=True)
class _Rungs:
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    batches: tuple[int, ...]


# One block alone cannot attend to what an earlier block has found: at equal time two narrower ones were better.
# A CPU makes between a thousand and a few hundred thousand tokens a second, a GPU a hundred times as many.
_CPU = _Rungs((2, 3, 4, 6, 8), (32, 48, 64, 96, 128, 192, 256, 384, 512), tuple(2**n for n in range(8, 15)))
_GPU = _Rungs(
    (4, 6, 8, 10, 12, 16, 18, 20, 24, 28),
    (256, 384, 512, 640, 768, 1024, 1280, 1536),
    tuple(2**n for n in range(14, 21)),
)


def shape_ladder(kind: str, device_type: str, seq_len: int, pins: Pins = Pins(), ranks: int = 1) -> list[Shape]:
    """List the shapes that a model kind may have on a type of device, from small to large.

    Args:
        kind: `model.kind`.
        device_type: torch's, `cpu` or `cuda`.
        seq_len: tokens of a row; an update has at least one row.
        pins: what the user has fixed. A fixed value need not be one of the usual ones, and where no aspect ratio is
            within the range, the nearest one is taken.
        ranks: that share the rows of an update evenly. A fixed size of an update must fit them already.

    Raises:
        CramError: no model has what is fixed.
    """
    rungs = _CPU if device_type == "cpu" else _GPU
    layers = rungs.layers if pins.layers is None else (pins.layers,)
    widths = rungs.widths if pins.width is None else (pins.width,)
    heads = {width: _heads(kind, width, pins.heads) for width in widths}
    pairs = [(depth, width) for depth in layers for width in widths if heads[width]]
    if not pairs:
        raise CramError(_unknown_shape(kind, pins))
    excess = {pair: _excess(*pair) for pair in pairs}
    batches = _batches(rungs.batches, seq_len, ranks) if pins.batch_tokens is None else [pins.batch_tokens]
    return [
        Shape(depth, width, heads[width], pins.mlp_width or usual_mlp_width(kind, width), tokens)
        for depth, width in pairs
        if excess[depth, width] == min(excess.values())
        for tokens in batches
    ]


def _batches(usual: tuple[int, ...], seq_len: int, ranks: int) -> list[int]:
    """List the sizes of updates: the usual ones of at least a row; of several ranks, as many rows for each of them."""
    if ranks == 1:
        return [tokens for tokens in usual if tokens >= seq_len] or [seq_len]
    step = ranks * seq_len
    return sorted({max(1, round(tokens / step)) * step for tokens in usual})


def usual_mlp_width(kind: str, width: int) -> int:
    """Return the inner width of the MLP: 8/3 of the width in a decoder, rounded up to 64; else twice the width.

    Source: arXiv:2002.05202 (8/3 gives a gated MLP the parameters of an ungated one of four times the width), changed:
    the encoders of this project have twice the width, as ModernBERT's have nearly (arXiv:2412.13663).
    """
    return math.ceil(8 * width / 3 / MLP_MULTIPLE) * MLP_MULTIPLE if kind == "decoder" else 2 * width


def _heads(kind: str, width: int, pinned: int | None) -> int:
    """Choose the heads of a width: 64 wide, or as near to that as is possible; 0 if no number of heads is possible."""
    target = HEAD_WIDTH if width >= NARROW else NARROW_HEAD_WIDTH
    possible = [heads for heads in ([pinned] if pinned else range(1, width + 1)) if _divides(kind, width, heads)]
    return min(possible, key=lambda heads: abs(math.log(width / heads / target)), default=0)


def _divides(kind: str, width: int, heads: int) -> bool:
    """Whether a width can be divided into so many heads; rotary positions need heads of even width."""
    return width % heads == 0 and (width // heads if MODELS[kind].rotary else width) % 2 == 0


def _excess(layers: int, width: int) -> float:
    """Return by which factor, as a logarithm, the aspect ratio is outside its range; 0 within."""
    ratio = width / layers
    return max(0.0, math.log(ASPECT[0] / ratio), math.log(ratio / ASPECT[1]))


def _unknown_shape(kind: str, pins: Pins) -> str:
    fixed = f"model.heads={pins.heads}" if pins.width is None else f"model.width={pins.width}"
    if pins.width is not None and pins.heads is not None:
        fixed += f" with model.heads={pins.heads}"
    remedy = "a width that is a multiple of the heads" if pins.heads else "an even width"
    even = ", so that each head has an even width" if pins.heads and MODELS[kind].rotary else ""
    return f"{fixed} is an unknown shape for model.kind={kind}: choose {remedy}{even}."
