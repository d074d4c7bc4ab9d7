"""Calls of every kernel, at odd shapes and hard values, and what float64 makes of the same inputs.

A case calls one op of `torch.ops.cram`, or one launcher, on tensors of the CPU, and so launches one kernel. What it
returns is compared with torch in float64. The tables of cases are in `row_cases.py` and `loss_cases.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Largest deviation, as a share of the largest entry. Half a unit in the last place is 3.9e-3 in bf16 and 4.9e-4 in
# fp16, of a number just above a power of two. In fp32 it is 6e-8: what is added are the errors of sums and of the
# approximate functions, up to 2.4e-7 each.
TOLERANCES = {"fp32": 1e-6, "fp16": 6e-4, "bf16": 4e-3}
# One element, less than a block, a block and one more, those of BERT, and one more than the largest of them.
WIDTHS = (1, 100, 257, 768, 1024, 1025)


@dataclass(frozen=True)
class Check:
    """A result beside its float64 value.

    Attributes:
        name: of the result.
        got: what the kernel computed.
        expected: the same in float64.
        tolerance: largest deviation as a share of `scale`.
        scale: of the deviation; None stands for the largest entry that is finite.
    """

    name: str
    got: Tensor
    expected: Tensor
    tolerance: float
    scale: float | None = None

    @property
    def deviation(self) -> float:
        """Return the largest deviation over the scale; infinite where something is finite and should not be, or NaN."""
        got, expected = self.got.double(), self.expected.double()
        if got.shape != expected.shape:
            return float("inf")
        finite = expected.isfinite()
        same = (got == expected) | (got.isnan() & expected.isnan())
        if not bool((got.isfinite() == finite).all()) or not bool(same[~finite].all()):
            return float("inf")
        if not finite.any():
            return 0.0
        scale = float(expected[finite].abs().max()) if self.scale is None else self.scale
        return float((got - expected)[finite].abs().max()) / (scale or 1.0)


@dataclass(frozen=True)
class Case:
    """A call that launches one kernel.

    Attributes:
        kernel: for the table, as in `cram_kernels._settings.RULES`.
        about: shape, options and values.
        dtype: of the rows.
        call: makes the call and returns the checks of its results.
        quick: whether the tests run it.
    """

    kernel: str
    about: str
    dtype: str
    call: Callable[[], Iterable[Check]]
    quick: bool = False

    @property
    def name(self) -> str:
        """Return what tells the case from all others."""
        return f"{self.kernel} {self.dtype} {self.about}"


def draw(*shape: int, dtype: str = "fp32", seed: int = 0, scale: float = 1.0) -> Tensor:
    """Draw normal numbers, always the same ones for a seed."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator)).to(DTYPES[dtype])


def set_hard_values(x: Tensor, values: str) -> Tensor:
    """Return rows with hard values, or as they are.

    Args:
        x: (rows, width).
        values: `offset` adds 10,000 to all, and 100 in half precision, where 10,000 leaves nothing of the rest. `nan`
            and `inf` put a NaN, and infinities of either sign, into the first rows. `tiny` makes variances of 1e-40,
            and `zero` all 0. `apart` makes the rows parts of longer rows of NaN, which begin at no multiple of 16
            bytes.
    """
    x = x.clone()
    rows, width = x.shape
    if values == "apart":
        longer = torch.full((rows, width + 7), float("nan"), dtype=x.dtype)
        longer[:, 3:-4] = x
        x = longer[:, 3:-4]
    elif values in ("tiny", "zero"):
        x = x * (1e-20 if values == "tiny" else 0.0)
    elif values == "offset":
        x = (x.double() + (1e4 if x.dtype == torch.float32 else 100.0)).to(x.dtype)
    elif values == "nan":
        x[0, width // 2] = float("nan")
    elif values == "inf":
        x[0, width // 2] = float("inf")
        x[1, 0] = float("-inf")
    return x
