"""The picture of a run's loss: the first chart of its page, as an image."""

from pathlib import Path

from cram.files.atomic import write_atomic
from cram.reporting.page.still import draw_still
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.curves import training_curves


def draw_loss(run: RunData, title: str) -> bytes | None:
    """Draw training and held-out loss of a run over its charged time, with its baseline and what happened in it.

    Returns:
        A PNG file; None for a run that has no loss to draw.
    """
    charts = training_curves([run])
    return draw_still(charts[0], title) if charts and charts[0].title == "Loss" else None


def plot_loss(run: RunData) -> Path:
    """Draw the loss of a run into `loss.png` in its folder.

    Returns:
        The path of the picture, which does not exist where there is no loss to draw.
    """
    path = run.folder / "loss.png"
    if picture := draw_loss(run, run.name):
        write_atomic(path, picture)
    return path
