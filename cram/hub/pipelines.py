"""Pipelines of `transformers` on an exported folder, for the examples in the summary of a run."""

import json
from pathlib import Path
from typing import Any


def stock_pipeline(task: str, folder: Path) -> Any:
    """Load an exported folder as a pipeline on the CPU, without a progress bar."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    make: Any = pipeline  # its types accept tasks as literals only
    return make(task, str(folder), device="cpu")


def quoted(text: str) -> str:
    """Put a text in quotation marks on one line, so that it stands out from the text around it."""
    return json.dumps(text, ensure_ascii=False)
