"""The page of one run: all its sections, in the order in which a reader asks."""

from pathlib import Path

from cram.reporting.page.blocks import Block, Chart, Facts, Links, Passage, Piece, Section, Side, Text
from cram.reporting.page.numbers import format_number
from cram.reporting.reading.glue import has_results
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.curves import CURVES, constant_values, training_curves
from cram.reporting.sections.events import history_section
from cram.reporting.sections.headline import headline_section, origin_section
from cram.reporting.sections.outcome import plan_section, rules_section, time_section
from cram.reporting.sections.repeat import repeat_section
from cram.reporting.sections.run_json import describe_schema
from cram.reporting.sections.size import size_section

# Files of a run folder in the order of interest: name, and what it is.
FILES = {
    "receipt.json": "every figure of the result",
    "recipe.yaml": "every key of the run",
    "metrics.jsonl": "all records of training and evaluation, a line each",
    "environment.json": "versions and hardware",
    "export": "the model for Hugging Face, with its model card",
    "model.safetensors": "final weights",
    "tokenizer.json": "the tokenizer",
    "held_out.safetensors": "the held-out rows that were scored",
    "glue.json": "GLUE, every fine-tuning",
    "loss.png": "the loss as a picture",
    "tensorboard": "the metrics for TensorBoard",
    "checkpoints": "states to resume from",
    "checksums.json": "SHA-256 of the files",
}


def run_sections(run: RunData) -> list[Section]:
    """Make the sections of one run. Links are relative to its folder.

    Raises:
        CramError: a file of the run is damaged.
    """
    sections = [
        headline_section(run),
        curves_section(run),
        examples_section(run),
        glue_section(run),
        time_section(run),
        rules_section(run),
        plan_section(run),
        repeat_section(run),
        origin_section(run),
        size_section(run),
        history_section(run, "history"),
        files_section(run),
    ]
    return [section for section in sections if section is not None]


def curves_section(run: RunData) -> Section:
    """The loss, and below it the other curves in pairs."""
    charts = training_curves([run])
    if not charts:
        return Section("curves", "Curves", [Text("No record of training has been written yet.", "note")])
    large, small = charts[:1], charts[1:]
    pairs: list[Block] = [_pair(small[index : index + 2]) for index in range(0, len(small), 2)]
    facts = [
        (curve.title, f"{format_number(curve.scale * value)} {curve.unit}".strip())
        for name, value in constant_values(run).items()
        for curve in (CURVES[name.split("/")[0]],)
    ]
    constant = [Facts(facts, "The same throughout")] if facts else []
    return Section("curves", "Curves", [*large, *pairs, *constant])


def _pair(charts: list[Chart]) -> Block:
    return Side(charts) if len(charts) == 2 else charts[0]


def examples_section(run: RunData) -> Section | None:
    """What the exported model answers; None where there is no export."""
    examples = run.figure("examples")
    if not examples:
        return None
    passages = [Passage("", [Piece(str(example))]) for example in examples]
    return Section("examples", "What the model answers", passages)


def glue_section(run: RunData) -> Section | None:
    """The GLUE results with every seed; None where the model was not fine-tuned."""
    if not has_results(run.folder):
        return None
    from cram.reporting.sections.glue import glue_blocks  # a third of a second, which most pages do not need

    return Section("glue", "GLUE", glue_blocks(run.folder))


def files_section(run: RunData) -> Section:
    """The files of the folder, and the run as JSON."""
    present = [(name, told) for name, told in FILES.items() if (run.folder / name).exists()]
    links = [(_show(run.folder / name), _show(Path(name), run.folder), told) for name, told in present]
    return Section("files", "Files", [Links(links), describe_schema()])


def _show(path: Path, folder: Path | None = None) -> str:
    """A name with a `/` at the end where it is a folder."""
    is_folder = ((folder / path) if folder else path).is_dir()
    text = str(path) if folder else path.name
    return f"{text}/" if is_folder else text
