"""`python -m cram.train recipe=R`: text in, a trained and exported language model out, inside a budget."""

from cram.command import dry_run_words, run_door
from cram.config.config import Config
from cram.config.recipe import read_config
from cram.distributed.launch import read_launch
from cram.machine.processes import INTERRUPTED

ABOUT = """Train a language model from scratch inside a fixed budget.

    python -m cram.train recipe=bert_demo
    python -m cram.train recipe=bert_24h data.source='texts/*.jsonl.zst' run=runs/mine
    python -m cram.train recipe=gpt_demo

The same command on an unfinished run resumes it. With --print it shows what it would do, and stops."""


def main(words: list[str]) -> int:
    """Make the run that the words describe, and print what came of it."""
    config = read_config(dry_run_words(words))
    if config.dry_run:
        from cram.dry_run import print_dry_run

        return print_dry_run(config)
    from cram.fitting import fit_config
    from cram.reporting.summary import print_summary

    outcome = fit_config(config)
    if not read_launch().leads:
        return 0  # rank 0 prints, and its status is that of all ranks
    if outcome.receipt is None:
        print(f"interrupted at {outcome.progress:.1%} of the budget; the state is saved. The same command resumes.")
        return INTERRUPTED
    return print_summary(outcome.folder, outcome.receipt)


if __name__ == "__main__":
    run_door(main, Config, ABOUT, on_ranks=True)
