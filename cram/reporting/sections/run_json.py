"""A run for machines: the JSON that stands in its page, with a schema that keeps its meaning from version to version.

The page holds it in a script element of the type `application/json`, whose `data-name` is the name of the run:

    page = lxml.html.parse("report.html")
    run = json.loads(page.find('.//script[@data-name="bert_demo"]').text)

A field is null where the run does not have it, such as the receipt of a run that is not finished. `FIELDS` describes
each of them; `SCHEMA` becomes larger when one of them changes its meaning or goes. New fields do not change it.
"""

from dataclasses import asdict
from typing import Any

from cram.files.atomic import nonfinite_to_none
from cram.reporting.page.blocks import Block, Cell, Column, Fold, Table, Text
from cram.reporting.page.thinning import thin
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.axes import Places
from cram.reporting.sections.events import list_events

SCHEMA = 1
MOST_POINTS = 500  # of a curve for machines; metrics.jsonl beside the page has all of them

FIELDS = {
    "schema": "number of this schema, 1",
    "name": "name of the run folder",
    "status": "`running`, `unfinished`, `finished`, or `failed` for a finished run without a usable model",
    "recipe": "every key of the run by group, as recipe.yaml has it",
    "environment": "versions and hardware, as environment.json has them",
    "receipt": "what receipt.json has; null before the end of the run",
    "glue": "`results` of glue.json; null where the model was not fine-tuned",
    "events": "list of what happened: `update`, `seconds` charged, `text`",
    "curves": "the records of training, thinned without losing the extremes of the loss: a list for each value by name",
    "curves.step": "updates so far",
    "curves.seconds": "charged to the budget",
    "curves.positions": "tokens seen so far",
    "curves.loss": "nats per predicted token",
    "curves.lr": "learning rates, an object by group of parameters; of earlier versions the number of the first group",
    "held_out": "the evaluations on held-out text: a list for each value by name",
    "held_out.step": "updates so far",
    "held_out.seconds": "charged to the budget",
    "held_out.positions": "tokens seen so far",
    "held_out.nats_per_token": "loss, nats per predicted token",
    "held_out.accuracy": "share of the predicted tokens whose likeliest token is right",
}


def run_document(run: RunData) -> dict[str, Any]:
    """A run as JSON by `FIELDS`."""
    places = Places(run)
    train, held_out = run.of_kind("train"), run.of_kind("held_out")
    losses = run.train["loss"].tolist() if "loss" in run.train else [None] * len(train)
    kept = [train[index] for index in thin(losses, MOST_POINTS)]
    document = {
        "schema": SCHEMA,
        "name": run.name,
        "status": run.status,
        "recipe": asdict(run.config),
        "environment": run.environment,
        "receipt": run.receipt,
        "glue": run.glue.get("results") if run.glue else None,
        "events": [
            {"update": event.update, "seconds": event.place.get("seconds"), "text": event.text}
            for event in list_events(run, places)
        ],
        "curves": _tabulate(kept, places, "curves"),
        "held_out": _tabulate(held_out, places, "held_out"),
    }
    plain: dict[str, Any] = nonfinite_to_none(document)
    return plain


def _tabulate(records: list[dict[str, Any]], places: Places, group: str) -> dict[str, list[Any]]:
    """Turn records into a list for each value that `FIELDS` names in a group."""
    names = [field.removeprefix(f"{group}.") for field in FIELDS if field.startswith(f"{group}.")]
    found = [places.of(record) for record in records]
    columns = {"seconds": "seconds", "positions": "tokens"}
    return {
        name: [place.get(columns[name]) for place in found]
        if name in columns
        else [record.get(name) for record in records]
        for name in names
    }


def describe_schema() -> Block:
    """The table of `FIELDS`, folded."""
    note = (
        "This page holds the run as JSON, in the script element of the type application/json whose data-name is the "
        f"name of the run. Later versions may add fields; schema is {SCHEMA} as long as none changes its meaning."
    )
    rows = [[Cell(name), Cell(meaning)] for name, meaning in FIELDS.items()]
    return Fold("For machines: this run as JSON", [Text(note), Table([Column("field"), Column("meaning")], rows)])
