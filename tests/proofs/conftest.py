"""Small PTX programs for the machine of `proofs.ptx`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from proofs.ptx.machine import Machine
from proofs.ptx.memory import GlobalMemory
from proofs.ptx.parser import parse

HEAD = """.version 8.7
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry kernel(
{parameters}
)
.reqntid {threads}
{{
    .reg .pred %p<30>;
    .reg .b16 %rs<30>;
    .reg .b32 %r<30>;
    .reg .b64 %rd<30>;
{body}
    ret;
}}
"""
PREFIXES = {2: "%rs", 4: "%r", 8: "%rd"}


class PtxRunner:
    """Runs small programs. Parameter i is `kernel_param_i`, the address of the i-th array."""

    def text(self, body: str, arrays: int, threads: int) -> str:
        """The whole text of a program with this body."""
        parameters = ",\n".join(f".param .u64 .ptr .global .align 1 kernel_param_{i}" for i in range(arrays))
        lines = "\n".join(line.strip() for line in body.replace(";", ";\n").replace(": ", ":\n").splitlines())
        return HEAD.format(parameters=parameters, threads=threads, body=lines)

    def run(
        self, body: str, *arrays: "np.ndarray[Any, Any]", threads: int = 32, ctas: int = 1, shared: int = 4096
    ) -> None:
        """Run a program on arrays, which it may change."""
        memory = GlobalMemory()
        tensors = [torch.from_numpy(array) for array in arrays]
        addresses = [np.array([memory.add(f"array {i}", t)], np.uint64) for i, t in enumerate(tensors)]
        Machine(parse(self.text(body, len(arrays), threads))).run(ctas, addresses, memory, shared)

    def apply(self, opcode: str, inputs: Sequence["np.ndarray[Any, Any]"], result: type[Any]) -> "np.ndarray[Any, Any]":
        """Return an opcode's results for arrays of operands, an entry for each thread."""
        count = len(inputs[0])
        threads = -(-count // 32) * 32
        columns = [np.resize(array, threads) for array in inputs]
        output = np.zeros(threads, result)
        lines, operands = ["mov.u32 %r29, %tid.x;"], []
        for number, column in enumerate([*columns, output]):
            lines.append(f"ld.param.b64 %rd{20 + number}, [kernel_param_{number}];")
            lines.append(f"mad.wide.u32 %rd{20 + number}, %r29, {column.itemsize}, %rd{20 + number};")
            operands.append(f"{PREFIXES[column.itemsize]}{number}")
            if number < len(columns):
                bits = 8 * column.itemsize
                lines.append(f"ld.global.b{bits} {operands[-1]}, [%rd{20 + number}];")
        lines.append(f"{opcode} {', '.join([operands[-1], *operands[:-1]])};")
        lines.append(f"st.global.b{8 * output.itemsize} [%rd{20 + len(columns)}], {operands[-1]};")
        self.run("\n".join(lines), *columns, output, threads=threads)
        return output[:count]


@pytest.fixture(scope="session")
def ptx() -> PtxRunner:
    """What runs small PTX programs."""
    return PtxRunner()


@pytest.fixture(scope="session")
def apply(ptx: PtxRunner) -> Callable[..., Any]:
    """A function that applies an opcode to arrays."""
    return lambda opcode, *inputs, result: ptx.apply(opcode, inputs, result)
