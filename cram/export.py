"""`python -m cram.export run=DIR [to=DIR]`: a finished run as a folder that stock `transformers` classes load."""

from pathlib import Path

from cram.command import run_door
from cram.config.commands import ExportConfig
from cram.config.recipe import read_words
from cram.errors import CramError

ABOUT = """Export a finished run as a Hugging Face folder.

    python -m cram.export run=runs/bert_demo to=my_bert
    python -m cram.export run=runs/bert_demo checkpoint=newest to=unfinished_bert"""


def main(words: list[str]) -> int:
    """Export the run that the words name.

    Raises:
        CramError: no run is given.
    """
    config = read_words(ExportConfig, words)
    if not config.run:
        raise CramError("run= is missing. Give run=DIR with the folder of a finished run.")
    from cram.hub.export import export_run
    from cram.run.folder import find_run

    to = export_run(find_run(config.run), Path(config.to) if config.to else None, config.card, config.checkpoint)
    print(f"{to}: loaded by transformers, logits equal to ours, the held-out loss is the receipt's")
    return 0


if __name__ == "__main__":
    run_door(main, ExportConfig, ABOUT)
