"""Makes the page of what is asked for: folders and files -> sections -> one HTML file."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cram.config.commands import ReportConfig
from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.files.limits import report_disk_errors
from cram.files.lock import lock_descriptor
from cram.files.whole_folder import check_folder_path
from cram.reporting.links import relocate
from cram.reporting.page.blocks import Page, Section
from cram.reporting.page.render import is_page, render_page
from cram.reporting.parts import Part, comparison_part, data_part, glue_part, plan_part, run_part, table_part
from cram.reporting.reading.runs import RunStatus, read_run

REPORT = "report.html"  # in the folder of what it shows
PATIENCE_SECONDS = 2.0  # for another process that writes a page into the same folder, which takes far less
HEAD_BYTES = 4000  # of a page, by which it is known


@dataclass(frozen=True)
class Subjects:
    """What a page shows; None and empty for what it does not show."""

    runs: Sequence[Path] = ()
    table: Path | None = None
    data: Path | None = None
    glue: Path | None = None
    plan: Path | None = None
    price: float | None = None  # of an hour of the machine of the runs

    @classmethod
    def of(cls, config: ReportConfig, runs: Sequence[str]) -> "Subjects":
        """Take the subjects out of the words of the user.

        Args:
            config: all keys but `run`.
            runs: the values of `run=`, in order.

        Raises:
            CramError: for no subject at all, for a run that is given twice, and for a price without a run.
        """
        folders = [Path(run) for run in runs]
        for number, folder in enumerate(folders):
            if same := [other for other in folders[:number] if other.resolve() == folder.resolve()]:
                raise CramError(f"run={same[0]} and run={folder} are the same folder. Give it once.")
        others = {
            name: Path(value)
            for name in ("table", "data", "glue", "plan")
            if (value := getattr(config, name)) is not None
        }
        if not folders and not others:
            raise CramError("nothing to show: give run=DIR, table=DIR, data=DIR, glue=DIR or plan=FILE.")
        if config.price is not None and not folders:
            raise CramError(f"price={config.price:g} is of the machine of a run. Give run=DIR too, or leave it out.")
        return cls(folders, **others, price=config.price)

    @property
    def default_path(self) -> Path:
        """Where the page is written if the user does not say."""
        folders = [*self.runs, *(folder for folder in (self.table, self.data) if folder)]
        alone = len(folders) == 1 and self.glue is None and self.plan is None
        return folders[0] / REPORT if alone else Path(REPORT)


def write_report(subjects: Subjects, to: str | None = None) -> Path:
    """Write the page of some subjects.

    Args:
        subjects: what it shows.
        to: the file; None for the default of the subjects.

    Returns:
        The path of the file.

    Raises:
        CramError: for a subject that cannot be read, and a file that cannot be written.
    """
    path = Path(to) if to is not None else subjects.default_path
    check_page_path(path)
    page = make_page(read_parts(subjects), path)
    write_page(page, path)
    return path


def write_run_page(
    folder: Path,
    status: RunStatus | None = None,
    refresh_seconds: int | None = None,
    stale_seconds: int | None = None,
) -> Path:
    """Write the page of a run into its folder.

    Args:
        folder: of the run.
        status: of the run, where the writer knows it; None for what its folder says.
        refresh_seconds: as in `Page`.
        stale_seconds: as in `Page`.

    Returns:
        The path of the page.

    Raises:
        CramError: the folder cannot be read, or the page cannot be written.
    """
    path = folder / REPORT
    check_page_path(path)
    run = read_run(folder)
    part = run_part(replace(run, status=status) if status else run)
    page = replace(make_page([part], path), refresh_seconds=refresh_seconds, stale_seconds=stale_seconds)
    write_page(page, path)
    return path


def check_page_path(path: Path) -> None:
    """Check that a page may be written to a path.

    Raises:
        CramError: the path does not end in .html, lies below a file, or holds something else than a page of ours.
    """
    if path.suffix.lower() != ".html" or not path.stem.strip("."):
        raise CramError(f"to={path} does not end in .html. Give the name of a page, such as to=report.html.")
    if path.is_symlink():
        raise CramError(f"to={path} is a link. Give the file itself, or remove the link.")
    if path.exists() and not _is_page(path):
        raise CramError(
            f"to={path} exists already and is not a page of cram.report. Choose another file, or remove it."
        )
    if not path.parent.is_dir():
        check_folder_path(path.parent, follow_link=True)


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with report_disk_errors(path, "to"), path.open("rb") as file:
        return is_page(file.read(HEAD_BYTES).decode("utf-8", "replace"))


def read_parts(subjects: Subjects) -> list[Part]:
    """Read all subjects and make their sections.

    Raises:
        CramError: for a folder or file that is not what its key says, one that is damaged, and runs that have nothing
            that they could be compared over.
    """
    parts = []
    runs = [replace(read_run(folder), price=subjects.price) for folder in subjects.runs]
    if runs:
        parts.append(run_part(runs[0]) if len(runs) == 1 else comparison_part(runs))
    if subjects.table:
        parts.append(table_part(subjects.table))
    if subjects.data:
        parts.append(data_part(subjects.data))
    if subjects.glue:
        parts.append(glue_part(subjects.glue))
    if subjects.plan:
        parts.append(plan_part(subjects.plan))
    return parts


def make_page(parts: Sequence[Part], path: Path) -> Page:
    """Put the parts of a page together.

    Args:
        path: of the page; links become relative to its folder.
    """
    sections = [
        replace(
            section,
            title=section.title if len(parts) == 1 else part.name_section(section),
            blocks=relocate(section.blocks, part.links_from, path.parent),
        )
        for part in parts
        for section in part.sections
    ]
    data = {name: value for part in parts for name, value in part.data.items()}
    return Page(
        title=", ".join(part.title for part in parts),
        subtitle="; ".join(part.subtitle for part in parts if part.subtitle),
        sections=_name_apart(sections),
        written=time.time(),
        data=data,
    )


def write_page(page: Page, path: Path) -> None:
    """Write a page so that a reader sees either the whole of it or the one before.

    Raises:
        CramError: the file cannot be written.
    """
    text = render_page(page)
    with report_disk_errors(path, "to"), _alone_in(path.parent):
        write_atomic(path, text.encode())


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Within the `with` block no other process writes a page into a folder; a run and the command may want to at once.

    Raises:
        CramError: another process has been at it for too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        patience_ends = time.monotonic() + PATIENCE_SECONDS
        while not lock_descriptor(descriptor, folder):
            if time.monotonic() > patience_ends:
                raise CramError(
                    f"{folder}: another process is writing a page there. Wait for it, or choose another to=."
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _name_apart(sections: Sequence[Section]) -> list[Section]:
    """Number the names of sections that have the same one, because links lead to them."""
    count: Counter[str] = Counter()
    named = []
    for section in sections:
        count[section.name] += 1
        number = count[section.name]
        named.append(section if number == 1 else replace(section, name=f"{section.name}-{number}"))
    return named
