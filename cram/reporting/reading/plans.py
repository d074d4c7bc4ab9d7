"""What a report knows of a plan: the recipe that `cram.plan to=FILE.yaml` writes, and FILE.json beside it."""

from dataclasses import dataclass
from pathlib import Path

from cram.config.config import Config
from cram.config.recipe import YAML_ENDINGS, load_config
from cram.errors import CramError
from cram.planner.plan_file import WrittenPlan, plan_file_of, read_plan_file


@dataclass(frozen=True)
class PlanData:
    """A plan, as its files tell of it.

    Attributes:
        path: of the recipe, as the user wrote it.
        config: the planned recipe, with its predictions under `plan.*`.
        written: the candidates and what the choice rests on; None where there is no file of them.
    """

    path: Path
    config: Config
    written: WrittenPlan | None

    @property
    def name(self) -> str:
        """The name of the file without its ending."""
        return self.path.stem


def read_plan(path: Path) -> PlanData:
    """Read a plan.

    Raises:
        CramError: for a file that is not a planned recipe, and for one that is damaged.
    """
    if not path.name.endswith(YAML_ENDINGS):
        raise CramError(f"plan={path} is not a plan: give the yaml file that cram.plan to= has written.")
    if not path.is_file():
        raise CramError(f"plan={path}: there is no such file. Make it with python -m cram.plan recipe=... to={path}.")
    try:
        config = load_config(path)
    except CramError as error:
        raise CramError(f"plan={path} is not a plan: {error}") from None
    if config.plan.budget is None:
        raise CramError(
            f"plan={path} is not a plan: it is a recipe without predictions, plan.budget is missing.\n"
            f"Make a plan of it with python -m cram.plan recipe={path} to=FILE.yaml."
        )
    beside = plan_file_of(path)
    return PlanData(path, config, read_plan_file(beside) if beside.exists() else None)
