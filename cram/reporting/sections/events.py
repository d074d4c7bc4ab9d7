"""What happened in a run: its processes, faults, phases, longer budgets and numbers of threads, in order."""

from dataclasses import dataclass
from typing import Any

from cram.reporting.page.blocks import Block, Cell, Column, Facts, Fold, Mark, Section, Table, Text, Tone
from cram.reporting.reading.runs import RunData, find_value
from cram.reporting.sections.axes import Places
from cram.reporting.sections.formats import count, format_bytes, format_fixed, format_seconds, format_whole, is_number
from cram.run.checksums import open_checkpoints
from cram.run.history import describe_changes, describe_extension

RESUMES = "resume"  # kind of the record that a process writes when it continues a run


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        update: number of updates before it.
        text: what happened.
        tone: `bad` for a fault.
        place: on each axis.
        mark: what curves call it, in a word or two; empty for an event that they do not show.
    """

    update: float
    text: str
    tone: Tone
    place: dict[str, float]
    mark: str = ""


def list_events(run: RunData, places: Places) -> list[Event]:
    """Everything that happened in a run, by update."""
    events = [
        *_begins(run, places),
        *(_extension(extension, places) for extension in run.told("extensions") or []),
        *(_fault(record, places) for record in run.of_kind("fault")),
        *(_phase(record, places) for record in run.of_kind("phase")),
        *_thread_choices(run, places),
    ]
    return sorted(events, key=lambda event: event.update)


def run_marks(run: RunData, places: Places) -> list[Mark]:
    """The events that the curves of a run show as vertical lines."""
    return [Mark(event.mark, event.place, event.tone) for event in list_events(run, places) if event.mark]


def _begins(run: RunData, places: Places) -> list[Event]:
    """Where processes continued the run: by their records, which earlier versions did not write, or by the receipt."""
    extended = {extension["update"] for extension in run.told("extensions") or []}  # told by events of their own
    if records := run.of_kind(RESUMES):
        events = [Event(record["step"], _resume(record), "note", places.of(record), "resumed") for record in records]
    else:
        updates = [process["update"] for process in (run.told("processes") or [])[1:]]
        events = [Event(update, "resumed", "note", places.at_update(update), "resumed") for update in updates]
    return [event for event in events if event.update not in extended]


def _resume(record: dict[str, Any]) -> str:
    lost = record.get("lost_seconds")
    return f"resumed, {format_seconds(lost)} lost in a crash" if is_number(lost) and lost > 0 else "resumed"


def _extension(extension: dict[str, Any], places: Places) -> Event:
    text = describe_extension(extension)
    return Event(extension["update"], text, "note", places.at_update(extension["update"]), "extended")


def _fault(record: dict[str, Any], places: Places) -> Event:
    loss, recent = (format_fixed(record.get(name)) for name in ("loss", "recent"))
    lr_factor = record.get("lr_factor")
    texts = {
        "spike": f"spike: loss {loss}, {recent} before",
        "rollback": f"rollback to update {format_whole(record.get('to_step'))}, learning rate times {lr_factor}",
    }
    event = str(record.get("event"))
    return Event(record["step"], texts.get(event, f"fault: {event}"), "bad", places.of(record), event)


def _phase(record: dict[str, Any], places: Places) -> Event:
    return Event(record["step"], "phase: masks begin", "note", places.of(record), "masks begin")


def _thread_choices(run: RunData, places: Places) -> list[Event]:
    """The measurements of the number of CPU threads."""
    events = []
    for record in run.of_kind("threads"):
        paces = record.get("tokens_per_second")
        paces = paces if isinstance(paces, dict) else {}  # a damaged file may hold anything
        measured = {count: pace for count, pace in paces.items() if is_number(pace)}
        told = ", ".join(f"{format_whole(pace)} with {count}" for count, pace in measured.items())
        text = f"{record.get('threads')} CPU threads chosen; tokens per second: {told}"
        events.append(Event(record["step"], text, "plain", places.of(record)))
    return events


def history_section(run: RunData, name: str) -> Section:
    """What happened in a run, and what its processes, checkpoints and compiled graphs were."""
    blocks: list[Block] = [_events_table(run), Facts(_facts(run))]
    processes = run.told("processes") or []
    if len(processes) > 1:
        changes = describe_changes(processes)
        note = f"Changed: {'; '.join(changes)}." if changes else "Nothing changed that changes the bytes of a result."
        blocks.append(_process_table(processes, note))
    if checkpoints := _checkpoint_table(run):
        blocks.append(Fold("Checkpoints", [checkpoints]))
    return Section(name, "What happened", blocks)


def _events_table(run: RunData) -> Block:
    events = list_events(run, Places(run))
    if not events:
        return Text("No fault, no resume, and nothing else to tell.", "note")
    rows = [
        [
            Cell(format_whole(event.update), event.update),
            Cell(format_seconds(event.place.get("seconds")), event.place.get("seconds")),
            Cell(event.text, tone=event.tone if event.tone == "bad" else "plain"),
        ]
        for event in events
    ]
    columns = [Column("update", numeric=True), Column("time charged", numeric=True), Column("event")]
    return Table(columns, rows, title="Events")


def _facts(run: RunData) -> list[tuple[str, str]]:
    """Faults, compilation, threads and micro-batches in short."""
    faults, compiled = run.told("faults") or {}, run.told("compile" if run.receipt else "compiled") or {}
    facts = []
    if faults:
        spikes, rollbacks = len(faults.get("spikes", [])), len(faults.get("rollbacks", []))
        factor = faults.get("lr_factor", 1.0)
        lowered = "" if factor == 1.0 else f"; the learning rate is {factor:g} times its value"
        counts = (count(faults.get("skipped", 0), "update"), count(rollbacks, "rollback"), count(spikes, "spike"))
        text = f"{counts[0]} left out, {counts[1]}, {counts[2]}{lowered}"
        facts.append(("faults", text))
    if compiled:
        facts.append(("compilation", _compilation(compiled)))
    facts += _ranks(run.figure("ranks"))
    if (threads := run.figure("threads")) is not None:
        facts.append(("CPU threads at the end", str(threads)))
    if (rows := run.told("micro_rows")) is not None:
        halvings = run.told("out_of_memory_halvings" if run.receipt else "out_of_memory")
        facts.append(("rows of a micro-batch", f"{rows}, halved {halvings} times" if halvings else str(rows)))
    return facts


def _ranks(ranks: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say how many ranks there were, on which devices, and what they lost by each other; nothing for one alone."""
    if not ranks or ranks["world_size"] == 1:  # receipts of earlier versions do not have it
        return []
    efficiency = ranks["scaling_efficiency"]
    share = "" if efficiency is None else f", {efficiency:.0%} of the pace of passes of one alone"
    waiting = f"{format_seconds(ranks['waiting_seconds'])} of waiting for each other"
    return [
        ("ranks", f"{ranks['world_size']} over {ranks['backend']}{share}, {waiting}"),
        ("devices of the ranks", "; ".join(ranks["devices"])),
    ]


def _compilation(compiled: dict[str, Any]) -> str:
    """Say what was compiled, how long that took, and what could not be."""
    graphs = " with CUDA graphs" if compiled.get("cuda_graphs") else ""
    failed = ", ".join(compiled.get("failed") or {})
    told = f"{compiled.get('kind')}{graphs}, {format_seconds(compiled.get('seconds'))}"
    return f"{told}; not compiled: {failed}" if failed else told


def _process_table(processes: list[dict[str, Any]], note: str) -> Table:
    columns = [
        Column("from update", numeric=True),
        Column("budget"),
        Column("device"),
        Column("ranks", numeric=True),
        Column("threads", numeric=True),
        Column("precision"),
        Column("torch"),
        Column("commit"),
    ]
    rows = []
    for process in processes:
        commit = find_value(process, "environment", "commit")
        begin = (process.get("budget"), process.get("device"), process.get("ranks", 1))
        texts = (process.get(key) for key in ("threads", "precision", "torch"))
        rows.append([Cell(format_whole(process["update"]), process["update"]), *map(_cell, (*begin, *texts, commit))])
    return Table(columns, rows, title="Processes", note=note, sortable=False)


def _cell(value: Any) -> Cell:
    return Cell("–" if value is None else str(value), value if is_number(value) else None)


def _checkpoint_table(run: RunData) -> Table | None:
    """The checkpoints in the folder; None without any."""
    checkpoints = open_checkpoints(run.folder)
    complete = checkpoints.complete_steps()
    rows = []
    for step in reversed(checkpoints.steps()):
        folder = checkpoints.folder / str(step)
        # A run at work may remove a checkpoint at any time.
        size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file()) if folder.is_dir() else 0
        holds = "everything that a resume needs" if step in complete else "weights only"
        rows.append(
            [
                Cell(format_whole(step), step, link=f"checkpoints/{step}/"),
                Cell(format_bytes(size), size),
                Cell(holds),
            ]
        )
    columns = [Column("update", numeric=True), Column("size", numeric=True), Column("holds")]
    return Table(columns, rows) if rows else None
