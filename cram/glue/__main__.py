"""`python -m cram.glue run=DIR [tasks=[cola,rte]] [data=DIR] [seeds=5]`: a checkpoint's score on GLUE."""

import sys

from cram.command import run_door
from cram.config.commands import GlueConfig
from cram.config.recipe import read_words

ABOUT = """Fine-tune a checkpoint on GLUE, score it by the published rules, and keep the fine-tuned models.

    python -m cram.glue run=runs/bert_24h
    python -m cram.glue run=runs/bert_24h data=glue tasks=[cola,rte]
    python -m cram.glue run=hf:bert-base-uncased protocol=bert
    python -m cram.glue run=runs/bert_24h frozen=true tasks=[sst2,cola]"""


def main(words: list[str]) -> int:
    """Run the fine-tunings that are missing, or the frozen probe, and print the results; 1 where a process ended."""
    config = read_words(GlueConfig, words)
    from cram.glue.device_workers import WorkerEndedError
    from cram.glue.printing import print_results
    from cram.glue.run import run_glue, run_probe

    if config.frozen:
        print("\n".join(run_probe(config)))
        return 0
    try:
        report = run_glue(config)
    except WorkerEndedError as error:
        print(f"cram: {error}", file=sys.stderr)
        return 1
    print_results(report.results, report.folder, report.title, report.left_out)
    return 0


if __name__ == "__main__":
    run_door(main, GlueConfig, ABOUT)
