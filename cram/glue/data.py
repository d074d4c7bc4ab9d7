"""Load the examples of GLUE, from a folder in the standard layout or from the Hugging Face Hub."""

from pathlib import Path

from cram.errors import CramError
from cram.glue.hub_dataset import read_hub
from cram.glue.splits import CountCheck, TaskData
from cram.glue.tasks import Task
from cram.glue.tsv_files import check_data_folder, describe_lacking, read_folder


def load_task(data: str, task: Task, check_counts: bool = True) -> TaskData:
    """Load the examples of a task.

    Args:
        data: a folder in the standard layout, or `hf:NAME`.
        check_counts: whether a count that is not the published one is an error; otherwise it becomes a remark.

    Raises:
        CramError: for a missing folder, file or split; for a wrong header, a short row or a label outside the set
            (file and line); for a count that is not the published one.
    """
    check = CountCheck(check_counts)
    if data.startswith("hf:"):
        return read_hub(data, task, check)
    return read_folder(Path(data), task, check)


def find_runnable(data: str, tasks: list[Task]) -> tuple[list[Task], list[str]]:
    """Find the tasks that can be fine-tuned with the files of a folder; from the Hub, all can.

    Returns:
        The tasks, and for each task that cannot be fine-tuned a line that names what is missing.

    Raises:
        CramError: if the folder does not exist, or no task can be fine-tuned.
    """
    if data.startswith("hf:"):
        return tasks, []
    folder = Path(data)
    check_data_folder(folder)
    lacking = {task.name: describe_lacking(folder, task) for task in tasks}
    runnable = [task for task in tasks if not lacking[task.name]]
    missing = [description for description in lacking.values() if description]
    if not runnable:
        raise CramError(f"data={data}: no task can be fine-tuned: {'; '.join(missing)}.")
    return runnable, missing
