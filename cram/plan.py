"""`python -m cram.plan recipe=R budget=B`: what to train on this machine with this budget, as a recipe."""

from pathlib import Path

from cram.command import run_door
from cram.config.commands import PlannerConfig
from cram.config.recipe import read_config, read_words
from cram.config.schema import collect_keys
from cram.errors import CramError

ABOUT = """Plan the size of a model and of its updates for a budget of time on this machine.

    python -m cram.plan recipe=bert_auto budget=10m to=mine.yaml
    python -m cram.train recipe=mine.yaml
    python -m cram.plan recipe=bert_auto budget=24h card='RTX 4090'
    python -m cram.plan fit=runs/ablations/scaling_decoder-800000tokens

It times a ladder of shapes here, predicts tokens and held-out loss of each, prints the table, and with to= writes a
recipe that holds every number, and beside it FILE.json with all candidates, which cram.report shows. All other words
are keys of a recipe; those that set a part of the shape are kept.

With fit= it fits scaling laws to finished runs instead, prints them beside the published ones, and writes fit.json and
a picture into their folder."""


def main(words: list[str]) -> int:
    """Print the plan or the fits that the words ask for.

    Raises:
        CramError: for words that are not keys, or that say nothing beside fit=.
    """
    own_words = [word for word in words if word.partition("=")[0] in collect_keys(PlannerConfig)]
    command = read_words(PlannerConfig, own_words)
    others = [word for word in words if word not in own_words]
    if command.fit is not None:
        unused = [word for word in words if word.partition("=")[0] not in ("fit", "to")]
        if unused:
            raise CramError(f"{unused[0]}: fit= reads finished runs and takes to= alone. Remove this word.")
        from cram.planner.fit_report import print_fit

        return print_fit(Path(command.fit), None if command.to is None else Path(command.to))
    config = read_config([*others, "model.size=auto"])
    from cram.planning import print_plan

    return print_plan(command, config)


if __name__ == "__main__":
    run_door(main, PlannerConfig, ABOUT)
