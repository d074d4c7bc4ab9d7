"""cram: train a language model from scratch on one GPU inside a fixed time budget."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# A bare clone works without installation: the kernels live in a source root of their own.
_kernels = Path(__file__).resolve().parent.parent / "kernels"
if (_kernels / "cram_kernels").is_dir() and str(_kernels) not in sys.path:
    sys.path.append(str(_kernels))
