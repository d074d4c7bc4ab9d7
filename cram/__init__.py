"""cram: train a language model from scratch on one GPU inside a fixed time budget.

    import cram

    run = cram.fit("bert_demo", budget="75s", run="runs/mine")  # trains; `python -m cram.train` does the same
    model, tokenizer = cram.load("runs/mine")  # a torch module and a tokenizer of the `tokenizers` library

`import cram` is quick: torch is imported by the first call.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from cram.methods.method import Method
    from cram.model.transformer import Transformer

__version__ = "0.1.0"
__all__ = ["FinishedRun", "fit", "load"]

# A bare clone works without installation: the kernels live in a source root of their own.
_kernels = Path(__file__).resolve().parent.parent / "kernels"
if (_kernels / "cram_kernels").is_dir() and str(_kernels) not in sys.path:
    sys.path.append(str(_kernels))


# A thread of GNU's OpenMP, which torch uses, keeps its core for milliseconds while it waits for the others (300,000
# rounds), also where another process needs that core: on two cores with one of them busy, two threads then have a tenth
# of the pace of one. After 1000 rounds, as in a team that has more threads than cores, they have about the same pace.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"


class FinishedRun(NamedTuple):
    """A run whose budget is spent.

    Attributes:
        folder: the run folder, which `load` and all commands take.
        receipt: the content of its receipt.json, such as `receipt["held_out"]["nats_per_token"]`.
    """

    folder: Path
    receipt: dict[str, Any]


def fit(recipe: str | Path, /, *, methods: "Sequence[Method]" = (), **words: Any) -> FinishedRun:
    """Train a model as `python -m cram.train recipe=RECIPE key=value ...` does.

    The same call on an unfinished run resumes it; on a finished run it returns at once.

    Args:
        recipe: name of a recipe of this package, or path to a yaml file.
        methods: methods of your own, subclasses of `cram.methods.method.Method`. The receipt has their names; their
            code is not recorded, so give the same ones when you resume.
        words: keys of the recipe with their values. A group of keys is a mapping, or each key has its full name:
            `fit("bert_demo", model={"layers": 2})` and `fit("bert_demo", **{"model.layers": 2})` are the same.
            None stands for `null`.

    Returns:
        The folder and the receipt of the run.

    Raises:
        CramError: for an unknown key, a value outside its range, and files at fault.
        KeyboardInterrupt: if the run was stopped by a signal; its state is saved.
        RuntimeError: if the weights or the held-out loss are not finite at the end.
    """
    from cram.config.recipe import read_config
    from cram.config.words import to_words
    from cram.errors import CramError

    config = read_config(to_words({"recipe": recipe, **words}))
    if config.dry_run:
        raise CramError("dry_run=true trains nothing. Use python -m cram.train for it.")
    from cram.fitting import fit_config

    outcome = fit_config(config, methods)
    if outcome.receipt is None:
        raise KeyboardInterrupt
    if failure := outcome.receipt.get("failed"):
        raise RuntimeError(f"{outcome.folder}: {failure}")
    return FinishedRun(outcome.folder, outcome.receipt)


def load(
    run: str | Path, *, checkpoint: str | int | None = None, device: str = "cpu"
) -> "tuple[Transformer, Tokenizer]":
    """Load the model and the tokenizer of a run.

    For `tokens`, int64 (rows, seq_len) with one document a row, `model(tokens)` returns the hidden states after the
    final norm, (rows * seq_len, width), and `model.head(hidden)` their logits, (rows * seq_len, vocab_size).
    `tokenizer.encode(text).ids` are the tokens of a document with its special tokens.

    Args:
        run: folder of a finished run; with `checkpoint` also of an unfinished one.
        checkpoint: `newest`, or the number of a checkpoint that was kept; None for the final weights.
        device: `cpu`, `cuda`, `cuda:N` or `auto`, as in a recipe.

    Returns:
        The model, in evaluation mode with fp32 weights, and its tokenizer.

    Raises:
        CramError: if the run does not exist, is not finished, or one of its files is damaged.
    """
    from cram.hub.snapshot import open_snapshot
    from cram.hub.trained import load_trained
    from cram.machine.device import pick_device
    from cram.run.checksums import read_run_config
    from cram.run.folder import find_run

    folder, torch_device = find_run(str(run)), pick_device(device)
    config = read_run_config(folder)
    if checkpoint is not None:
        snapshot = open_snapshot(folder, config, str(checkpoint), torch_device)
        return snapshot.model, snapshot.tokenizer
    return load_trained(folder, config, torch_device)
