import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cram.data.cluster import connection
from cram.data.cluster.connection import connect, find_head, import_ray, is_reachable
from cram.errors import CramError


@pytest.fixture
def listener() -> Any:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def rehearsal(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(connection, "REHEARSAL", script)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CramError, match=r"\Adata\.engine=ray: the package ray cannot .*\n.*pip install -e '\.\[ray\]'"):
        import_ray()


@pytest.mark.parametrize("address", ["", "head", "head:", "head:port", "ray://head:10001", "head:6379/x", "a b:1"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(CramError, match=r"\Adata\.address='.*': this is not the address .*\n.*HOST:PORT of its head"):
        find_head(address)


@pytest.mark.parametrize("address", ["head:6379", "10.0.0.1:6379", "[fd00::1]:6379"])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert find_head(address) == address


def test_auto_is_the_cluster_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection, "CURRENT_CLUSTER", tmp_path / "ray_current_cluster")
    with pytest.raises(CramError, match=r"\Adata\.address=auto: this machine does not belong .*\n.*ray start --head"):
        find_head("auto")
    (tmp_path / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert find_head("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert find_head("auto") == "10.0.0.2:6379"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"])
def test_an_address_that_nobody_answers_at_is_refused(address: str) -> None:
    with pytest.raises(CramError, match=rf"\Adata\.address={address}: no Ray cluster answers .*\n.*ray start --head"):
        connect(address, None)


def test_a_port_of_another_service_is_refused(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 3.0)
    assert is_reachable(f"127.0.0.1:{listener}")
    with pytest.raises(CramError, match=r"cannot join the Ray cluster at .* \(no answer in 3 seconds\)\n.*ray start"):
        connect(f"127.0.0.1:{listener}", None)


def test_a_cluster_of_other_versions_is_refused_with_both(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.12.1 "
        "This process on node 10.0.0.1 was started with: Ray: 2.60.0 Python: 3.11.7"
    )
    rehearsal(monkeypatch, f"print('CRAM', {text!r})")
    with pytest.raises(CramError, match=r"has Ray 2\.50\.0 and Python 3\.12\.1, this process Ray 2\.60\.0 and Python"):
        connect(f"127.0.0.1:{listener}", None)


@pytest.mark.parametrize(
    ("script", "fault"),
    [("print('noise\\nCRAM This node is not part')", "This node is not part"), ("exit(7)", "ended with status 7")],
)
def test_what_ray_says_is_passed_on(listener: int, monkeypatch: pytest.MonkeyPatch, script: str, fault: str) -> None:
    rehearsal(monkeypatch, script)
    with pytest.raises(CramError, match=rf"cannot join .* \(.*{fault}\)\nthis machine must be one of its nodes"):
        connect(f"127.0.0.1:{listener}", None)
