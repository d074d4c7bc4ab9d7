"""`python -m cram.evaluate run=DIR [text=FILES]`: held-out loss of a finished run, or its loss on any text."""

from cram.command import run_door
from cram.config.commands import EvaluateConfig
from cram.config.recipe import read_words

ABOUT = """Evaluate a finished run: on its held-out documents, or on any text.

    python -m cram.evaluate run=runs/bert_demo
    python -m cram.evaluate run=runs/bert_demo text='letters/*.txt'
    python -m cram.evaluate run=runs/bert_demo checkpoint=newest"""


def main(words: list[str]) -> int:
    """Print nats per token, bits per byte and accuracy."""
    config = read_words(EvaluateConfig, words)
    from cram.hub.run_scores import score_run

    print(score_run(config).line())
    return 0


if __name__ == "__main__":
    run_door(main, EvaluateConfig, ABOUT, only_prints=True)
