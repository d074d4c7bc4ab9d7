"""`python -m cram.glue run=DIR [tasks=[cola,rte]] [data=DIR] [seeds=5]`: a checkpoint's score on GLUE."""

from pathlib import Path
from typing import Any

from cram.command import run_door
from cram.config.commands import GlueConfig
from cram.config.recipe import read_words
from cram.errors import CramError
from cram.files.limits import report_disk_errors
from cram.files.lock import take_lock
from cram.files.whole_folder import check_folder_path
from cram.glue.tasks import find_tasks

ABOUT = """Fine-tune a checkpoint on GLUE, score it by the published rules, and keep the fine-tuned models.

    python -m cram.glue run=runs/bert_24h
    python -m cram.glue run=runs/bert_24h data=glue tasks=[cola,rte]
    python -m cram.glue run=hf:bert-base-uncased protocol=bert"""

WIDTH = 160  # columns of the table where there is no terminal


def check(said: GlueConfig) -> None:
    """Refuse what can be refused before anything is loaded. Errors: CramError naming the key."""
    if not said.run:
        raise CramError("run= is missing. Say run=DIR with a run folder or an exported one, or run=hf:NAME.")


def at_checkpoint(said: GlueConfig) -> None:
    """Export the checkpoint that is asked for, and take it in the place of the run; its results get a folder beside."""
    from cram.hub.export import export_run

    run = Path(said.run)
    if not (run / "recipe.yaml").is_file():
        raise CramError(
            f"checkpoint={said.checkpoint}: run={said.run} is not a run folder, which alone has checkpoints."
        )
    exported = export_run(run, checkpoint=said.checkpoint)
    said.run, said.to = str(exported), said.to or str(run / exported.name.replace("export", "glue"))


def main(words: list[str]) -> int:
    """Run what is missing and show the results."""
    said = read_words(GlueConfig, words)
    check(said)
    tasks = find_tasks(said.tasks)
    left_out: list[str] = []
    from cram.glue.benchmark import Benchmark, results_folder
    from cram.glue.data import runnable
    from cram.glue.encoder import open_encoder

    if not said.tasks:
        tasks, left_out = runnable(said.data, tasks)
    if said.to:
        check_folder_path(Path(said.to), follow_link=True)
    if said.checkpoint:
        at_checkpoint(said)
    out = results_folder(said)
    check_folder_path(out / "glue")
    encoder = open_encoder(said.run, said.length, said.pooling)
    try:
        (out / "glue").mkdir(parents=True, exist_ok=True)
        lock = take_lock(out / "glue" / ".lock")
    except OSError as error:
        raise CramError(f"to={out}: cannot be a folder ({error.strerror}). Choose another to=.") from None
    if lock is None:
        raise CramError(f"{out}/glue: another process is at work there. Wait for it, or choose another to=.")
    with lock, report_disk_errors(out, "to"):
        results = Benchmark(said, out, tasks, encoder).run()
        _show(results, out, left_out)
    return 0


def _show(results: dict[str, Any], out: Path, left_out: list[str]) -> None:
    from rich.console import Console

    from cram.glue.benchmark import describe
    from cram.glue.show import plot, table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    protocol = results["protocol"]
    as_published = "" if protocol["kept"] else ", not as published"
    title = f"{out.name}: GLUE dev scores, medians over seeds (protocol {protocol['name']}{as_published})"
    console.print(table(results, title))
    for line in describe(results, left_out):
        print(line)
    plot(out / "glue" / "glue.png", results, title)
    print(f"files       {out}/glue.json, glue/glue.png, glue/submission.zip, glue/predictions/")


if __name__ == "__main__":
    run_door(main, GlueConfig, ABOUT)
