"""One suite, three homes: the reference on a CPU, Triton in its interpreter, and Triton on a GPU.

The interpreter's home is a process with TRITON_INTERPRET=1 and CRAM_KERNELS=triton in its environment; a test there and
on a GPU fails if no kernel was launched, unless it is marked `no_launch`.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cram_kernels._launch import launch_counts
from cram_kernels._triton import HAS_TRITON, triton

KERNELS = Path(__file__).parents[2] / "kernels"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all where there is no interpreter that works."""
    reason = _no_interpreter() if INTERPRETED else None
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_interpreter() -> str | None:
    """Triton may be missing; before 3.7 it cannot loop to a runtime bound in its interpreter beside NumPy 2.4."""
    if not HAS_TRITON:
        return "Triton is not installed"
    ours, numpys = (tuple(int(part) for part in module.__version__.split(".")[:2]) for module in (triton, np))
    if ours < (3, 7) and numpys >= (2, 4):
        return f"the interpreter of triton {triton.__version__} fails beside numpy {np.__version__}"
    return None


@pytest.fixture(scope="session")
def home() -> str:
    """`reference`, `interpreter` or `gpu`: full shapes are for the last alone, the interpreter takes small ones."""
    if INTERPRETED:
        return "interpreter"
    return "gpu" if torch.cuda.is_available() else "reference"


@pytest.fixture(scope="session")
def device(home: str) -> torch.device:
    """Where the tensors of a test live."""
    return torch.device("cuda" if home == "gpu" else "cpu")


@pytest.fixture(autouse=True)
def triton_really_ran(request: pytest.FixtureRequest, home: str) -> Iterator[None]:
    """A launch counter says so."""
    torch.manual_seed(0)
    before = launch_counts.total()
    yield
    if home != "reference" and not request.node.get_closest_marker("no_launch"):
        assert launch_counts.total() > before, "no Triton kernel was launched"


# Tensors (..., 16) that lie otherwise than one row after the other.
STRIDES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a part of longer rows": lambda base: base[..., 3:19],
    "every second row": lambda base: base[:, ::2, :16],
    "transposed": lambda base: base.transpose(0, 1)[..., :16],
    "columns apart": lambda base: base[..., ::2],
    "width first": lambda base: base.permute(2, 0, 1)[:16].permute(1, 2, 0),
    "expanded": lambda base: base[:1, :, :16].expand(6, 10, 16),
    "unaligned": lambda base: base.flatten()[1 : 1 + 6 * 10 * 16].view(6, 10, 16),
}


@pytest.fixture(params=STRIDES)
def strided(request: pytest.FixtureRequest, device: torch.device) -> Callable[[], torch.Tensor]:
    """Makes random tensors of three dimensions, the last of 16, in one of the layouts."""
    return lambda: STRIDES[request.param](torch.randn(6, 10, 32, device=device))


@pytest.fixture(scope="session")
def run_apart() -> Callable[[str], None]:
    """Runs code in a process of its own, which must end well: an offset that overflowed would end it by a signal.

    What is launched there counts here.
    """

    def run(code: str) -> None:
        code += "\nfrom cram_kernels._launch import launch_counts\nprint(launch_counts.total())"
        done = subprocess.run([sys.executable, "-c", code], cwd=KERNELS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        launch_counts["apart"] += int(done.stdout)

    return run
