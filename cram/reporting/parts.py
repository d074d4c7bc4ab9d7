"""What a page shows of each subject: its folder or file is read, and becomes sections."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cram.reporting.page.blocks import Section
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.run import run_sections
from cram.reporting.sections.run_json import run_document


@dataclass(frozen=True)
class Part:
    """What a page shows of one subject.

    Attributes:
        kind: what the subject is, in a word, for a page that shows several.
        title: of the subject, such as `Run bert_demo`.
        sections: in order.
        links_from: the folder that links of the sections start from.
        data: for machines, JSON values by name.
        subtitle: what else tells subjects of a kind apart; empty for nothing.
    """

    kind: str
    title: str
    sections: Sequence[Section]
    links_from: Path = Path()
    data: dict[str, Any] = field(default_factory=dict)
    subtitle: str = ""

    def name_section(self, section: Section) -> str:
        """The title of a section on a page that shows several subjects."""
        return section.title if section.title.startswith(self.kind) else f"{self.kind}: {section.title}"


def run_part(run: RunData) -> Part:
    """What a page shows of one run."""
    told = f"{f'recipe {run.config.recipe}' if run.config.recipe else 'no recipe'}, {run.status}"
    return Part("Run", f"Run {run.name}", run_sections(run), run.folder, {run.name: run_document(run)}, told)


# The parts of a page that shows no such subject are not imported, so that it is there sooner.
def comparison_part(runs: Sequence[RunData]) -> Part:
    """What a page shows of several runs."""
    from cram.reporting.sections.comparison import comparison_sections, tell_apart

    names = tell_apart([run.folder for run in runs])
    data = {name: run_document(run) for name, run in zip(names, runs, strict=True)}
    return Part("Runs", f"{len(runs)} runs compared", comparison_sections(runs), Path(), data, ", ".join(names))


def table_part(folder: Path) -> Part:
    """What a page shows of a table of arms."""
    from cram.reporting.reading.tables import read_table
    from cram.reporting.sections.table import table_sections

    table = read_table(folder)
    return Part("Table", f"Table {table.name}", table_sections(table), folder)


def data_part(folder: Path) -> Part:
    """What a page shows of a shard folder."""
    from cram.reporting.reading.shards import read_shards
    from cram.reporting.sections.data import data_sections

    shards = read_shards(folder)
    return Part("Data", f"Shards {shards.name}", data_sections(shards), folder)


def plan_part(path: Path) -> Part:
    """What a page shows of a plan."""
    from cram.reporting.reading.plans import read_plan
    from cram.reporting.sections.plan import plan_sections

    plan = read_plan(path)
    return Part("Plan", f"Plan {plan.path.name}", plan_sections(plan), path.parent)


def glue_part(folder: Path) -> Part:
    """What a page shows of results on GLUE."""
    from cram.reporting.reading.glue import read_glue
    from cram.reporting.sections.glue import glue_sections

    return Part("GLUE", f"GLUE of {folder.resolve().name}", glue_sections(read_glue(folder)), folder)
