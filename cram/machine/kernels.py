"""What the user has chosen for the kernels by environment variables: checked before any work, named in receipts."""

from typing import Any

import torch

from cram.errors import CramError


def check_kernel_variables(device: torch.device) -> None:
    """Check CRAM_KERNELS and CRAM_KERNELS_SETTINGS.

    Raises:
        CramError: for a value that is not valid, for kernels of a CPU that cannot be compiled, and for launch settings
            of another GPU.
    """
    from cram_kernels._dispatch import forced_implementation, use_cpu_kernels

    try:
        if forced_implementation() == "cpu":
            use_cpu_kernels(torch.ones(1))
    except (ValueError, RuntimeError) as error:
        raise CramError(str(error)) from None
    describe_kernel_settings(device)


def name_kernels(device: torch.device) -> str:
    """Return which implementation computes the kernels on a device: `triton`, `cpu` (C++) or `reference`."""
    from cram_kernels._dispatch import forced_implementation, use_cpu_kernels
    from cram_kernels._triton import HAS_TRITON

    if forced := forced_implementation():
        return forced
    if device.type == "cpu":
        return "cpu" if use_cpu_kernels(torch.ones(1)) else "reference"
    return "triton" if HAS_TRITON else "reference"


def describe_kernel_settings(device: torch.device) -> dict[str, Any] | None:
    """Return path, SHA-256 and number of entries of the file of launch settings in use; None where there is none.

    Raises:
        CramError: the file is not valid, or is that of another GPU.
    """
    from cram_kernels._tuned import settings_file_in_use

    try:
        file = settings_file_in_use(device)
    except ValueError as error:
        raise CramError(str(error)) from None
    return None if file is None else {"file": file.path, "sha256": file.sha256, "entries": len(file.entries)}
