"""Settings from a file: what is refused, and that an entry holds for its kernel, width and dtype only."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram_kernels import _settings, _tuned
from cram_kernels._dispatch import MOST_WIDTH
from cram_kernels._launch import Launch, record_launches
from cram_kernels._layer_norm_kernels import launch_layer_norm_forward
from cram_kernels._settings import RULES, LaunchSettings, Problem, Target, choose_by, choose_settings
from cram_kernels._tuned import MOST_BLOCKS, VARIABLE, Choice, Tuned, find_obstacle, settings_file_in_use

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ENTRY = {
    "kernel": "layer_norm_forward",
    "width": 768,
    "dtype": "bf16",
    "rows": 2,
    "block": 1024,
    "warps": 8,
    "stages": 1,
}
FILE = {"format": 1, "device": "an H100", "capability": 90, "entries": [ENTRY]}

Give = Callable[..., Path]


@pytest.fixture(autouse=True)
def clear_cache() -> Iterator[None]:
    """Forget the files that were read."""
    _tuned.read_settings_file.cache_clear()
    yield
    _tuned.read_settings_file.cache_clear()


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Give:
    """A function that writes a settings file, FILE with some values replaced, and sets the variable."""

    def write(**values: Any) -> Path:
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(FILE | values))
        monkeypatch.setenv(VARIABLE, str(path))
        return path

    return write


def choose(width: int = 768, dtype: torch.dtype = torch.bfloat16, kernel: str = "layer_norm_forward") -> LaunchSettings:
    return choose_settings(kernel, 8192, width, dtype, CPU)


@pytest.mark.no_launch
def test_the_table_has_every_kernel() -> None:
    assert set(MOST_BLOCKS) == set(RULES)


@pytest.mark.no_launch
@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 100, 120])
def test_the_settings_of_every_rule_could_stand_in_a_file(capability: int) -> None:
    for kernel, rule in RULES.items():
        for width in (1, 24, 100, 128, 257, 768, 1000, 1024, 4096, MOST_WIDTH, 32_768, 50_257):
            if width > MOST_WIDTH and "layer_norm" in kernel:
                continue  # the reference takes these
            for dtype, itemsize in (("fp32", 4), ("bf16", 2)):
                settings = rule(Problem(8192, width, itemsize, capability))
                tuned = Tuned(settings.rows, settings.block, settings.warps, settings.stages)
                assert find_obstacle(Choice(kernel, width, dtype), tuned) is None


@pytest.mark.no_launch
def test_an_entry_holds_for_its_kernel_width_and_dtype(give: Give) -> None:
    rules = [choose(), choose(1024), choose(dtype=torch.float32), choose(kernel="layer_norm_backward")]
    give()
    tuned = LaunchSettings(2, 1024, 8, 1)
    assert rules[0] != tuned
    assert [choose(), choose(1024), choose(dtype=torch.float32), choose(kernel="layer_norm_backward")] == [
        tuned,
        *rules[1:],
    ]


@pytest.mark.no_launch
def test_launches_take_the_settings_of_the_file(give: Give) -> None:
    x = torch.empty(8192, 768, dtype=torch.bfloat16, device="meta")
    give()
    launches: list[Launch]
    with record_launches(Target(90, 132)) as launches:
        launch_layer_norm_forward(x, None, None, None, 1e-5)
    (launch,) = launches
    assert (launch.settings, launch.programs) == (LaunchSettings(2, 1024, 8, 1), 4096)
    assert (launch.constants["ROWS"], launch.constants["BLOCK"]) == (2, 1024)


@pytest.mark.no_launch
def test_a_file_of_another_capability_is_passed_over_for_stand_ins_and_refused_for_a_gpu(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = choose()
    path = give(capability=80)
    assert choose() == rule
    assert settings_file_in_use(CPU) is None
    monkeypatch.setattr(_settings, "_read_target", lambda _: Target(90, 132))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    message = (
        f"{VARIABLE}={path}: made on an H100 of compute capability 8.0, and NVIDIA H100 has 9.0. "
        "Unset it, or make a file for this GPU: python -m bench.tune_kernels"
    )
    for ask in (
        lambda: choose_settings("rope", 1, 32, torch.float32, GPU),
        lambda: settings_file_in_use(GPU),
    ):
        with pytest.raises(ValueError) as raised:
            ask()
        assert str(raised.value) == message
    give()
    _tuned.read_settings_file.cache_clear()
    file = settings_file_in_use(GPU)
    assert file is not None and file.entries == {Choice("layer_norm_forward", 768, "bf16"): Tuned(2, 1024, 8, 1)}


@pytest.mark.no_launch
def test_a_file_is_read_once(give: Give) -> None:
    path = give()
    choose()
    path.write_text("changed")
    assert choose() == LaunchSettings(2, 1024, 8, 1)


@pytest.mark.no_launch
def test_a_chooser_goes_before_the_file_and_gets_the_rule(give: Give) -> None:
    rule = choose()
    give()
    asked = []

    def chooser(choice: Choice, settings: LaunchSettings) -> LaunchSettings:
        asked.append((str(choice), settings))
        return LaunchSettings(1, 1024, 1)

    with choose_by(chooser):
        assert choose() == LaunchSettings(1, 1024, 1)
    assert asked == [("layer_norm_forward 768 bf16", rule)]
    assert choose() == LaunchSettings(2, 1024, 8, 1)


KERNELS = ", ".join(MOST_BLOCKS)
WRONG_ENTRIES = {
    "an entry": (5, "entry 1 is not an object"),
    "kernel": ({"kernel": "layernorm"}, f"entry 1: kernel is 'layernorm', not one of {KERNELS}"),
    "kernel list": ({"kernel": ["rope"]}, f"entry 1: kernel is ['rope'], not one of {KERNELS}"),
    "dtype": ({"dtype": "fp64"}, "entry 1: dtype is 'fp64', not one of fp32, fp16, bf16"),
    "width": ({"width": None}, "entry 1: width is None, not a positive whole number"),
    "rows": ({"rows": 0}, "entry 1: rows is 0, not a positive whole number"),
    "true": ({"stages": True}, "entry 1: stages is True, not a positive whole number"),
    "half": ({"warps": 1.5}, "entry 1: warps is 1.5, not a positive whole number"),
    "power": ({"block": 1000}, "layer_norm_forward 768 bf16: block is 1000, not a power of two"),
    "narrow": (
        {"kernel": "rope", "width": 48, "block": 32},
        "rope 48 bf16: block is 32, so that a row of 48 has 2 blocks, and at most 1 are held",
    ),
    "warps": (
        {"warps": 64},
        "layer_norm_forward 768 bf16: 64 warps and 1 stages; at most 32 and 8 can be launched",
    ),
    "elements": (
        {"rows": 2048},
        "layer_norm_forward 768 bf16: rows x block is 2097152, and Triton takes at most 1048576 elements",
    ),
}
WRONG_FILES = {
    "no format": ({"format": None}, "has format None, and this version reads format 1"),
    "new format": ({"format": 2}, "has format 2, and this version reads format 1"),
    "capability": ({"capability": "9.0"}, "capability must be a whole number, device a text, and entries a list"),
    "entries": ({"entries": {}}, "capability must be a whole number, device a text, and entries a list"),
    "twice": ({"entries": [ENTRY, ENTRY]}, "layer_norm_forward 768 bf16 has two entries"),
    **{
        name: ({"entries": [ENTRY | entry if isinstance(entry, dict) else entry]}, message)
        for name, (entry, message) in WRONG_ENTRIES.items()
    },
}


@pytest.mark.no_launch
@pytest.mark.parametrize("values, message", WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_content_is_refused_in_one_line(give: Give, values: dict[str, Any], message: str) -> None:
    path = give(**values)
    with pytest.raises(ValueError) as raised:
        choose()
    assert str(raised.value) == f"{VARIABLE}={path}: {message}. Make it again: python -m bench.tune_kernels"
    with pytest.raises(ValueError):  # also on a device on which it would not be used
        settings_file_in_use(CPU)


@pytest.mark.no_launch
@pytest.mark.parametrize("text", ["", "{", "\xff\xfe", "[" * 100_000])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="latin-1")
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(ValueError, match=r"settings.json: not a readable JSON file \(") as raised:
        choose()
    assert "\n" not in str(raised.value)


@pytest.mark.no_launch
def test_other_json_and_missing_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.json"
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(ValueError, match=r"settings.json: there is no such file\.$"):
        choose()
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"settings.json: not a file of launch settings, because it has no format\."):
        choose()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="there is no such file"):
        choose()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(ENTRY)), inner, max_size=9),
    max_leaves=9,
)
ENTRIES = st.fixed_dictionaries(
    {
        "kernel": st.sampled_from(list(MOST_BLOCKS)) | ANYTHING,
        "dtype": st.sampled_from(["fp32", "fp16", "bf16"]) | ANYTHING,
        "width": st.integers(-1, 9000) | ANYTHING,
        **{name: st.sampled_from([1, 2, 4, 8, 16, 64, 1024, 1 << 20]) | ANYTHING for name in Tuned._fields},
    }
)


@pytest.mark.no_launch
@given(content=st.fixed_dictionaries({}, optional={n: st.just(v) | ANYTHING for n, v in FILE.items()}) | ANYTHING)
def test_any_json_is_read_or_refused_in_one_line(content: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_anything(content, tmp_path_factory)


@pytest.mark.no_launch
@given(entries=st.lists(ENTRIES, max_size=3))
def test_any_entries_are_read_or_refused_in_one_line(
    entries: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_anything(FILE | {"entries": entries}, tmp_path_factory)


def check_anything(content: Any, folders: pytest.TempPathFactory) -> None:
    """Check that what is read can be launched, and that other content is refused by the one error."""
    path = folders.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    _tuned.read_settings_file.cache_clear()
    try:
        file = _tuned.read_settings_file(str(path))
    except ValueError as error:
        assert str(error).startswith(f"{VARIABLE}={path}: ") and "\n" not in str(error)
        return
    assert len(file.entries) == len(content["entries"])
    for choice, tuned in file.entries.items():
        assert find_obstacle(choice, tuned) is None
        assert choice.width >= 1 and min(tuned) >= 1 and tuned.rows & (tuned.rows - 1) == 0
        assert tuned.block >= choice.width or choice.kernel != "rope"


@pytest.mark.no_launch
def test_the_device_names_its_file(give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    give()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    device: Any = SimpleNamespace(type="cuda")
    file = settings_file_in_use(device)
    assert file is not None
    assert len(file.sha256) == 64
    monkeypatch.delenv(VARIABLE)
    assert settings_file_in_use(device) is None
