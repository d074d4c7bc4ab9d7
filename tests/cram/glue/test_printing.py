"""The table and the plot of results."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cram.config.commands import GlueConfig
from cram.glue.finetune import PROTOCOLS
from cram.glue.plot import plot_scores
from cram.glue.pretrained import open_pretrained
from cram.glue.printing import results_table
from cram.glue.protocol import compare_with_protocol
from cram.glue.results import collect_scores, mean_of_medians, summarize
from cram.glue.results_file import Job, ResultsFile
from cram.glue.tasks import NINE, find_tasks

EIGHT = find_tasks([])


def test_table_and_plot_show_every_figure(
    checkpoint: Path, filled_file: Callable[..., ResultsFile], tmp_path: Path
) -> None:
    from rich.console import Console

    file = filled_file(tmp_path)
    file.outcomes |= filled_file(tmp_path, untrained=True).outcomes
    file.outcomes[Job("rte", 4e-5, 1)]["scores"]["rte"]["accuracy"] = None
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    figures = collect_scores(file, EIGHT, 4e-5)
    protocol = compare_with_protocol(GlueConfig(pooling="first"), PROTOCOLS["cramming"], pretrained, figures, [])
    results = summarize(file, EIGHT, [4e-5], protocol, dict.fromkeys(NINE, 33.0))
    assert results["majority"]["mean"] == pytest.approx(33.0)
    untrained = collect_scores(filled_file(tmp_path), EIGHT, 4e-5)
    assert results["untrained"]["mean"] == pytest.approx(mean_of_medians(untrained))
    console = Console(width=200, record=True)
    console.print(results_table(results, "title"))
    text = console.export_text()
    published = ("80.9", "78.6", "80.7")
    ours = ("61.5 (1 not finite)", f"{results['mean']:.1f}", "33.0")
    for expected in (*NINE, *published, *ours, "untrained", "mean of nine"):
        assert expected in text
    assert plot_scores(tmp_path / "glue.png", results, "title").read_bytes().startswith(b"\x89PNG")
