"""Whether a table of reference system time fits a run."""

from cram.config.config import Config
from cram.errors import CramError
from cram.methods.method import Methods
from cram.reference_time import OPTIMIZER, TRAINING, ReferenceTimeTable


def check_reference_table(config: Config, table: ReferenceTimeTable, methods: Methods) -> None:
    """Check that a table of reference system time fits a config and has all entries that its run needs.

    Raises:
        CramError: naming the key that differs, or the entry that is missing.
    """
    ours = {f"model.{name}": getattr(config.model, name) for name in table.model}
    theirs = {f"model.{name}": value for name, value in table.model.items()}
    for name, value in (ours | {"data.seq_len": config.data.seq_len}).items():
        wanted = (theirs | {"data.seq_len": table.seq_len})[name]
        if value != wanted:
            raise CramError(f"rst.table: the table of {table.machine} is for {name}={wanted}, not {value}.")
    # The vocabulary of a given tokenizer is known with the data only.
    trained = None if config.tokenizer else config.wordpiece.vocab_size
    if trained and table.vocab_size and trained != table.vocab_size:
        raise CramError(
            f"rst.table: the table of {table.machine} is for wordpiece.vocab_size={table.vocab_size}, not {trained}: "
            "the head, which is part of each pass, takes another time."
        )
    depths = {depth for method in methods for depth in method.depths(config.model.layers)} | {config.model.layers}
    needed = [(kind, depth) for depth in sorted(depths) for kind in (TRAINING, "step")]
    needed += [unit for method in methods for depth in sorted(depths) for unit in method.passes(depth)]
    for kind, blocks in needed:
        if kind == "step":
            table.unit_seconds(OPTIMIZER, f"{config.optimizer.kind}/{blocks}")
        elif config.rst.overheads or kind != "forward":
            table.unit_seconds(kind, str(blocks))
