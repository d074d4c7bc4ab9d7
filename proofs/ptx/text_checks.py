"""What must stand in the text of a kernel, and what must not.

The machine finds races by running. These checks do not depend on the inputs of a run.
"""

import re

from proofs.ptx.errors import PtxError
from proofs.ptx.lanes import WARP
from proofs.ptx.parser import Address, Instruction, Program, Register

_TRUNCATION = re.compile(r"cvt\.(rz|rm|rp)\.(bf16|f16)")
IN_PLACE = "_linear_cross_entropy_kernel"  # it overwrites what it reads


def check_text(program: Program) -> None:
    """Check the text of a kernel.

    Raises:
        PtxError: a conversion to half precision does not round to the nearest, or an in-place kernel stores without a
            barrier behind its first load.
    """
    for instruction in program.instructions:
        if _TRUNCATION.match(instruction.opcode):
            raise PtxError("a conversion to half precision does not round to the nearest", instruction)
    if program.name == IN_PLACE:
        _check_barrier_before_stores(program)


def _check_barrier_before_stores(program: Program) -> None:
    """Refuse a first store to the logits that no barrier parts from the first load of them, that of the target."""
    load, store = find_in_place(program)
    names = ("bar.sync", "barrier", "bar.warp.sync") if program.threads == WARP else ("bar.sync", "barrier")
    barriers = [i.line for i in program.instructions if i.opcode.startswith(names)]
    if not any(load.line < line < store.line for line in barriers):
        raise PtxError("no barrier stands between the load of the target's logit and the first store", store)


def find_in_place(program: Program) -> tuple[Instruction, Instruction]:
    """Return the first load and the first store at addresses computed from the first argument.

    Raises:
        PtxError: the kernel has no store in place.
    """
    addresses = list_addresses(program, 0)
    loads, stores = (
        [i for i in program.instructions if i.opcode.startswith(name) and _base(i) in addresses]
        for name in ("ld.global", "st.global")
    )
    if not loads or not stores:
        raise PtxError("a kernel that works in place neither loads nor stores its first argument")
    return loads[0], stores[0]


def list_addresses(program: Program, parameter: int) -> set[str]:
    """Return the names of registers that are computed from the address in a parameter."""
    found: set[str] = set()
    before = -1
    while len(found) != before:  # a loop may hand an address back to an earlier instruction
        before = len(found)
        for instruction in program.instructions:
            target, *sources = instruction.operands or (None,)
            if not isinstance(target, Register) or instruction.opcode.startswith("ld.global"):
                continue
            of_parameter = any(isinstance(s, Address) and s.base == parameter for s in sources)
            if of_parameter or any(isinstance(s, Register) and s.name in found for s in sources):
                found.add(target.name)
    return found


def _base(instruction: Instruction) -> str:
    """Return the name of the register in the address of an instruction."""
    for operand in instruction.operands:
        if isinstance(operand, Address) and isinstance(operand.base, Register):
            return operand.base.name
    return ""
