"""What must stand in the text of a kernel, and what must not.

The machine finds races by running. These checks do not depend on the inputs of a run.
"""

import re

from proofs.ptx.errors import PtxError
from proofs.ptx.parser import Instruction, Program

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
        _check_barrier_before_stores(program.instructions)


def _check_barrier_before_stores(instructions: list[Instruction]) -> None:
    """Refuse a first store to global memory that no barrier parts from the load of the target's logit.

    That load is the first one of an entry of the logits: the one before it, of 8 bytes, is of the target itself.
    """
    loads = [i for i in instructions if i.opcode.startswith("ld.global") and not i.opcode.endswith("b64")]
    stores = [i for i in instructions if i.opcode.startswith("st.global")]
    barriers = [i.line for i in instructions if i.opcode.startswith(("bar.sync", "barrier"))]
    if not loads or not stores:
        raise PtxError("a kernel that works in place neither loads nor stores")
    first_load, first_store = loads[0].line, stores[0].line
    if not any(first_load < line < first_store for line in barriers):
        raise PtxError("no barrier stands between the load of the target's logit and the first store", stores[0])
