"""What every door that writes does on a full disk and on one that must not be written to.

    python -m proofs.disks [doors=train,prepare,glue,export,ablate]

Each door is called on a small disk of its own with some kilobytes left, and on a read-only one; then with room, the
same command must give what a call on a large disk gives. Prints a table; exit status 1 where a line is not as it must
be: status 2 (1 of a table, which names the arm that failed), one or two lines, and nothing hidden left in the end.
Needs Linux and the right to mount, for which it calls itself in a namespace of its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from proofs.doors import DOORS, Bench, Door, environment, finish, partial

LEFT = (0, 16, 64, 256, 512)  # kilobytes
MEGABYTES = 64
BALLAST = "ballast"


def call(door: Door, disk: Path) -> tuple[int, list[str]]:
    """The status of a call and what it says on standard error, or of a table the line of the arm that failed."""
    done = subprocess.run(door.command, cwd=disk, capture_output=True, text=True, check=False, env=environment())
    if door.name == "ablate" and done.returncode == 1:
        return 1, [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    return done.returncode, done.stderr.splitlines()


def is_told(status: int, said: list[str]) -> bool:
    """Whether a refusal is one: of one or two lines, or of an arm that says so."""
    if status == 1:
        return len(said) > 0 and all("cram: " in line for line in said)
    return status == 2 and 1 <= len(said) <= 2 and said[0].startswith("cram: ")


def mount(*words: str) -> None:
    """Call mount, which must work."""
    subprocess.run(["mount", *words], check=True)


def fill(disk: Path, kilobytes: int) -> None:
    """Leave so much room on a disk."""
    stat = os.statvfs(disk)
    (disk / BALLAST).write_bytes(bytes(max(0, stat.f_bavail * stat.f_frsize - 1024 * kilobytes)))


def prove(door: Door, bench: Bench, what: str, expected: dict[str, str]) -> bool:
    """Call a door on such a disk, and again with room; print a line of the table. Whether it is as it must be."""
    inputs, disk = bench.fresh(door, f"{door.name}-inputs"), bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(disk))
    try:
        shutil.copytree(inputs, disk, dirs_exist_ok=True)
        if what == "read-only":
            mount("-o", "remount,ro", str(disk))
        else:
            fill(disk, int(what.partition(" ")[0]))
        status, said = call(door, disk)
        there = partial(disk)
        whole = door.files(disk) == expected  # there was room enough
        mount("-o", "remount,rw", str(disk))
        (disk / BALLAST).unlink(missing_ok=True)
        finish(door, disk, bench.folder / "again.log")
        same, hidden = door.files(disk) == expected, partial(disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    good = (whole if status == 0 else is_told(status, said)) and same and not hidden
    told = " ".join(said if len(said) <= 2 else [f"{len(said)} lines:", said[-1]]).replace(str(disk), "DISK")
    print(
        f"| {door.name} | {what} | {status} | {told} | {', '.join(there[:2]) or 'nothing'} | "
        f"{'as alone' if same else 'DIFFERENT'}{', hidden files' * bool(hidden)} |{'' if good else '  <- WRONG'}",
        flush=True,
    )
    return good


def main(words: list[str]) -> int:
    options = {"doors": "train,prepare,glue,export,ablate"} | dict(word.split("=", 1) for word in words)
    print("| door | disk | status | message | begun | result, called again with room |\n|---|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for door in (DOORS[name] for name in options["doors"].split(",")):
            alone = bench.fresh(door, f"{door.name}-alone")
            finish(door, alone, bench.folder / f"{door.name}.log")
            expected = door.files(alone)
            for what in ("read-only", *(f"{kilobytes} kB left" for kilobytes in LEFT)):
                wrong += not prove(door, bench, what, expected)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    if os.environ.get("CRAM_DISKS") is None:
        os.environ["CRAM_DISKS"] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    sys.exit(main(sys.argv[1:]))
