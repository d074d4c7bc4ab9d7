"""`python -m proofs.disks`: call the doors that write on a full disk and on a read-only one."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from proofs.doors import WRITING_DOORS, Door, Workspace, choose_doors, environment, find_partial, run_to_end

ABOUT = """See what every door does on a full disk and on a read-only one.

    python -m proofs.disks doors=[train,prepare]

Each door is called on a small disk of its own with some kilobytes free, and on a read-only one. Then it is called again
with room, and must give what a call on a large disk gives. Prints a table; exit status 1 if a row is wrong. A refusal
is right if it has status 2 and one or two lines; that of a table has status 1 and names the arm that failed.
Needs Linux and the right to mount, for which the command runs in a namespace of its own."""
FREE_KILOBYTES = (0, 16, 64, 256, 512)
DISK_MEGABYTES = 64
BALLAST = "ballast"
IN_NAMESPACE = "CRAM_DISKS"  # an environment variable, set once the command runs in its own namespace


@dataclass
class DisksConfig:
    """The keys of this proof."""

    doors: list[str] = key(WRITING_DOORS, "doors to call")


def call(door: Door, disk: Path) -> tuple[int, list[str]]:
    """Call a door. Returns its exit status and its error lines; of a table, the lines of the arms that failed."""
    answer = subprocess.run(door.command, cwd=disk, capture_output=True, text=True, check=False, env=environment())
    if door.name == "ablate" and answer.returncode == 1:
        return 1, [line for line in answer.stdout.splitlines() if line.startswith("failed: ")]
    return answer.returncode, answer.stderr.splitlines()


def is_proper_refusal(status: int, lines: list[str]) -> bool:
    """Whether a call was refused as it must be, with one or two lines, or by the arms of a table."""
    if status == 1:
        return len(lines) > 0 and all("cram: " in line for line in lines)
    return status == 2 and 1 <= len(lines) <= 2 and lines[0].startswith("cram: ")


def mount(*words: str) -> None:
    """Call `mount`, which must succeed."""
    subprocess.run(["mount", *words], check=True)


def fill(disk: Path, free_kilobytes: int) -> None:
    """Fill a disk until only so much room is left."""
    stat = os.statvfs(disk)
    (disk / BALLAST).write_bytes(bytes(max(0, stat.f_bavail * stat.f_frsize - 1024 * free_kilobytes)))


def prove(door: Door, workspace: Workspace, free_kilobytes: int | None, expected: dict[str, str]) -> bool:
    """Call a door on a small disk, call it again with room, and print a row of the table.

    Args:
        door: the door to call.
        workspace: makes its inputs.
        free_kilobytes: room on the disk; None for a read-only disk.
        expected: hashes of the results of a call on a large disk.

    Returns:
        Whether both calls were right.
    """
    inputs, disk = workspace.new_folder(door, f"{door.name}-inputs"), workspace.folder / "disk"
    disk.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "none", str(disk))
    try:
        shutil.copytree(inputs, disk, dirs_exist_ok=True)
        if free_kilobytes is None:
            mount("-o", "remount,ro", str(disk))
        else:
            fill(disk, free_kilobytes)
        status, lines = call(door, disk)
        partial = find_partial(disk)
        is_complete = door.hash_results(disk) == expected  # there was enough room
        mount("-o", "remount,rw", str(disk))
        (disk / BALLAST).unlink(missing_ok=True)
        run_to_end(door, disk, workspace.folder / "again.log")
        is_same, hidden = door.hash_results(disk) == expected, find_partial(disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    passed = (is_complete if status == 0 else is_proper_refusal(status, lines)) and is_same and not hidden
    message = " ".join(lines if len(lines) <= 2 else [f"{len(lines)} lines:", lines[-1]]).replace(str(disk), "DISK")
    kind = "read-only" if free_kilobytes is None else f"{free_kilobytes} kB free"
    result = ("as on a large disk" if is_same else "DIFFERENT") + (", hidden files" if hidden else "")
    print(
        f"| {door.name} | {kind} | {status} | {message} | {', '.join(partial[:2]) or 'nothing'} | {result} |"
        f"{'' if passed else '  <- WRONG'}",
        flush=True,
    )
    return passed


def main(words: list[str]) -> int:
    """Call the chosen doors on small disks and print the table."""
    doors = choose_doors(read_words(DisksConfig, words).doors)
    if IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", "proofs.disks", *words])
    print(
        "| door | disk | status | message | partial files | result, called again with room |\n|---|---|---|---|---|---|"
    )
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        for door in doors:
            large_disk = workspace.new_folder(door, f"{door.name}-large")
            run_to_end(door, large_disk, workspace.folder / f"{door.name}.log")
            expected = door.hash_results(large_disk)
            for free_kilobytes in (None, *FREE_KILOBYTES):
                failures += not prove(door, workspace, free_kilobytes, expected)
    print(f"{failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    run_door(main, DisksConfig, ABOUT)
