import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from cram.limits import raise_open_files
raise_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "after"), [(64, 128, 128), (100, 100, 100)])
def test_the_limit_of_open_files_becomes_the_most_that_is_allowed(soft: int, hard: int, after: int) -> None:
    code = CODE.format(soft=soft, hard=hard)
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(after), str(hard)]


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_system_that_refuses_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    import resource

    from cram.limits import raise_open_files

    asked = []

    def refuse(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_open_files()
    assert asked == [(65536, resource.RLIM_INFINITY)]
