"""The exported folder, used as a new user would: by stock `transformers` alone."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cram.config.config import Config
from cram.config.data import DataConfig, WordPieceConfig
from cram.config.model import ModelConfig
from cram.config.training import CardConfig, EvaluationConfig, ObjectiveConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.tokenizer import train_tokenizer
from cram.errors import CramError
from cram.evaluate import main as evaluate_door
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.export import main
from cram.files.atomic import write_json
from cram.files.sealed import hash_files, read_checksums
from cram.hub.export import export_run
from cram.hub.kinds import stock_model
from cram.hub.modernbert import MODERNBERT
from cram.hub.qwen3 import QWEN3
from cram.hub.stock import StockModel
from cram.model.kinds import new_model
from cram.run.checksums import RESULT_FILES, register_results, unregister_results, write_start_files

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "many", "green", "birds", "sang", "of", "rivers"]
WORDS += ["and", "old", "mountains", "under", "stars"]
CONFIG = Config(
    model=ModelConfig(layers=3, width=32, heads=2, mlp_width=48, rope_theta=5000.0, norm_eps=1e-6, zero_init=False),
    data=DataConfig(seq_len=24),
    wordpiece=WordPieceConfig(vocab_size=64),
)
CAUSAL = replace(CONFIG, model=replace(CONFIG.model, kind="decoder"), objective=ObjectiveConfig(kind="causal"))


def text(number: int) -> str:
    return " ".join(WORDS[(number * 7 + i * (number + 3)) % len(WORDS)] for i in range(3 + number * 2 % 40))


def receipt(figures: dict[str, float], causal: bool) -> dict[str, Any]:
    return {
        "budget": {"clock": "wall", "limit": 60.0, "spent": 60.1, "overshoot": 0.1, "progress": 1.0},
        "held_out": {
            **figures, "unigram_nats_per_token": 4.5,
            **({"bigram_bits_per_byte": 3.75} if causal else {"mask_rate": 0.15}),
        },
        "model": {"kind": "encoder", "parameters": 34_000},
        "data": {"source": "pydocs", "hash": "abc123", "tokens": 1000, "seq_len": 24, "vocab_size": 64},
        "positions": 5000, "predicted_tokens": 900, "updates": 12, "epochs": 0.5, "device": "a machine",
        "precision": "float32", "seed": 0, "versions": {"torch": "2"}, "commit": None,
        "rules": [{"rule": "one device", "passed": True, "found": "1"},
                  {"rule": "no sample repeated", "passed": False, "found": "3"}],
    }  # fmt: skip


def make_run(folder: Path, config: Config = CONFIG) -> Path:
    """A finished run of a small model whose every weight matters."""
    folder.mkdir()
    tokenizer = train_tokenizer([text(number) for number in range(60)], config.wordpiece)
    write_start_files(folder, config, {}, tokenizer.to_str(pretty=True).encode(), data="of the test")
    documents = [HeldOutDocument(text(number), f"{number:064x}") for number in range(40)]
    objective = config.objective.kind
    rows = build_held_out(documents, tokenizer, config.data.seq_len, EvaluationConfig(), objective=objective)
    (folder / "held_out.safetensors").write_bytes(rows.to_bytes())
    model = new_model(config.model, tokenizer.get_vocab_size())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            shift = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + shift)
    save_file(model.state_dict(), folder / "model.safetensors")
    figures = evaluate(model, rows, torch.device("cpu"))
    write_json(folder / "receipt.json", receipt(figures, objective == "causal"))
    register_results(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    return export_run(run, run / "export")


@pytest.fixture(scope="module")
def decoder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "decoder", CAUSAL)


@pytest.fixture(scope="module")
def decoder(decoder_run: Path) -> Path:
    return export_run(decoder_run, decoder_run / "export")


def test_stock_names_are_all_there(run: Path, exported: Path) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM

    stock = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(exported))
    names = set(load_file(exported / "model.safetensors"))
    assert names == set(stock.state_dict()) - {"decoder.weight"}
    assert names == set(MODERNBERT.rename(load_file(run / "model.safetensors")))


def test_config_says_the_same_to_version_4_and_5(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["layer_types"] == ["full_attention"] * 3
    assert config["rope_parameters"]["full_attention"]["rope_theta"] == 5000.0
    assert config["global_attn_every_n_layers"] == 1
    assert config["global_rope_theta"] == config["local_rope_theta"] == 5000.0
    assert config["decoder_bias"] is False
    assert config["norm_eps"] == config["layer_norm_eps"] == 1e-6
    # What loaders in other languages read without a default of their own.
    assert {"local_attention", "initializer_cutoff_factor", "pad_token_id", "classifier_activation"} <= config.keys()


def test_everybody_may_read_every_file_that_others_may(exported: Path) -> None:
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_cards_snippet_repeats_the_held_out_loss(
    kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("decoder" if kind == "decoder" else "exported")
    card = (folder / "README.md").read_text()
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "held_out" in code)
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(snippet, {})
    wanted = json.loads((folder.parent / "receipt.json").read_text())["held_out"]["nats_per_token"]
    assert float(printed.getvalue().split()[0]) == pytest.approx(wanted, abs=1e-3)


def test_card_gives_loss_baseline_and_rules(run: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    nats = json.loads((run / "receipt.json").read_text())["held_out"]["nats_per_token"]
    for part in (f"{nats:.4f} nats", "4.5000 nats", "- [x] one device: 1", "- [ ] no sample repeated: 3", "`pydocs`"):
        assert part in card


def test_fill_mask_pipeline(exported: Path) -> None:
    from transformers import pipeline

    answers = pipeline("fill-mask", str(exported), device="cpu")("the cat sat on a [MASK].", top_k=3)
    assert len(answers) == 3
    assert all(answer["token_str"] for answer in answers)


def test_tokenizer_adds_and_cuts(exported: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert (tokenizer.mask_token, tokenizer.pad_token, tokenizer.model_max_length) == ("[MASK]", "[PAD]", 24)
    both = tokenizer(["the cat", text(30)], padding=True, truncation=True, return_tensors="pt")
    assert set(both) == {"input_ids", "attention_mask"}
    assert both["input_ids"].shape == (2, 24)
    assert both["input_ids"][0, 0] == tokenizer.cls_token_id
    assert both["attention_mask"].sum() < both["attention_mask"].numel()


def test_stock_names_of_a_decoder_are_all_there(decoder_run: Path, decoder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    stock = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(decoder))
    names = set(load_file(decoder / "model.safetensors"))
    assert type(stock).__name__ == "Qwen3ForCausalLM"
    assert names == set(stock.state_dict()) - {"lm_head.weight"}
    assert names == set(QWEN3.rename(load_file(decoder_run / "model.safetensors")))


def test_config_of_a_decoder_says_the_same_to_version_4_and_5(decoder: Path) -> None:
    config = json.loads((decoder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5000.0
    assert (config["head_dim"], config["num_key_value_heads"]) == (16, 2)
    assert config["use_sliding_window"] is False
    assert config["layer_types"] == ["full_attention"] * 3
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-6


def test_card_of_a_decoder_names_its_class_and_both_baselines(decoder_run: Path, decoder: Path) -> None:
    card = (decoder / "README.md").read_text()
    bits = json.loads((decoder_run / "receipt.json").read_text())["held_out"]["bits_per_byte"]
    for part in (
        "Qwen3ForCausalLM", "AutoModelForCausalLM", "pipeline_tag: text-generation", "4.5000 nats", "A decoder of",
        f"{bits:.4f} bits per byte, where counts of pairs of bytes give 3.7500", 'pipeline("text-generation"',
    ):  # fmt: skip
        assert part in card
    assert "[MASK]" not in card


def test_texts_of_unlike_length_are_continued_together_as_alone(decoder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(decoder), AutoModelForCausalLM.from_pretrained(decoder)
    texts = ["the", "the cat sat on the mat and the dog"]

    def written(together: list[str]) -> list[str]:
        rows = tokenizer(together, return_tensors="pt", padding=True)
        ids = model.generate(**rows, max_new_tokens=5, do_sample=False)[:, -5:]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    assert written(texts) == [*written(texts[:1]), *written(texts[1:])]


def test_text_generation_continues_a_prompt(decoder: Path) -> None:
    from transformers import pipeline

    write = pipeline("text-generation", str(decoder), device="cpu")
    answers = [write("the cat sat", max_new_tokens=6, do_sample=False)[0] for _ in range(2)]
    assert answers[0] == answers[1]
    answer = answers[0]["generated_text"]
    assert re.match(r"the cat sat(\w| \w)", answer), answer
    said = write.model.generation_config
    assert (said.bos_token_id, said.eos_token_id, said.pad_token_id, said.max_new_tokens) == (2, 3, 0, 12)
    ids = write("the cat sat", return_tensors=True)[0]["generated_token_ids"]
    prompt = write.tokenizer("the cat sat")["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert len(prompt) < len(ids) <= len(prompt) + 12


def test_a_decoders_tokenizer_leaves_the_end_open_and_decodes_what_follows_a_text(decoder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(decoder)
    ids = tokenizer("the cat sat")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id == tokenizer.bos_token_id
    assert tokenizer.sep_token_id == tokenizer.eos_token_id not in ids
    for cut in range(2, len(ids)):
        before, after = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:cut], ids[cut:]))
        assert before + after == " the cat sat"
    both = tokenizer("the cat", "on a mat")["input_ids"]
    assert both == [tokenizer.cls_token_id, *tokenizer("the cat on a mat")["input_ids"][1:]]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_examples_are_the_same_each_time_and_leave_the_generators_alone(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("decoder" if kind == "decoder" else "exported")
    examples = stock_model(kind).task.examples
    before = torch.random.get_rng_state()
    lines = examples(folder)
    assert len(lines) >= 2
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert examples(folder) == lines


def test_sequence_classification_loads_and_trains(exported: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(exported, num_labels=3)
    ours = load_file(exported / "model.safetensors")
    for name, parameter in model.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(parameter, ours[name])
    loss = model(input_ids=torch.randint(5, 64, (2, 9)), labels=torch.tensor([0, 2])).loss
    loss.backward()
    assert model.classifier.weight.grad is not None
    assert loss.isfinite()


def test_the_same_folder_again_is_left_and_another_is_not_overwritten(run: Path, exported: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    assert export_run(run, exported) == exported
    assert before == {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    other = run.parent / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(CramError, match="something else"):
        export_run(run, other)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]
    assert not list(run.parent.glob(".*partial"))


@pytest.mark.parametrize(("fixture", "key"), [("run", "norm_eps"), ("decoder_run", "rms_norm_eps")])
def test_wrong_logits_fail_and_leave_nothing(
    fixture: str, key: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(fixture)
    right = StockModel.config
    monkeypatch.setattr(StockModel, "config", lambda *arguments: right(*arguments) | {key: 0.1})
    with pytest.raises(RuntimeError, match="logits differ"):
        export_run(run, run.parent / "wrong")
    assert not (run.parent / "wrong").exists()


def test_unfinished_run_and_missing_words(tmp_path: Path) -> None:
    with pytest.raises(CramError, match="run= is missing"):
        main([])
    with pytest.raises(CramError, match=r"no recipe\.yaml"):
        main([f"run={tmp_path}"])
    run = make_run(tmp_path / "small")
    unregister_results(run)
    with pytest.raises(CramError, match=r"no receipt\.json"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_kind_without_a_stock_class_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "small")
    config = replace(CONFIG, model=replace(CONFIG.model, kind="crammed"))
    write_start_files(run, config, {}, (run / "tokenizer.json").read_bytes(), data="of the test")
    register_results(run)
    words = [sys.executable, "-m", "cram.export", f"run={run}", f"to={tmp_path / 'out'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be exported: transformers has no class that computes model.kind=crammed" in done.stderr
    assert "a run of model.kind=encoder or decoder can be exported" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", *RESULT_FILES])
def test_a_file_that_the_run_did_not_write_is_refused(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "small")
    data = bytearray((run / name).read_bytes())
    data[-20] ^= 1
    (run / name).write_bytes(data)
    with pytest.raises(CramError, match=f"{name}: damaged or edited"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    (run / name).unlink()
    with pytest.raises(CramError, match=f"{name}: missing"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def rewrite_receipt(run: Path, weights: dict[str, torch.Tensor], added: float = 0.0) -> None:
    """Make the receipt say what other weights come to, and something more."""
    model = new_model(CONFIG.model, len(weights["embedding.weight"]))
    model.load_state_dict(weights)
    figures = evaluate(model.eval(), HeldOutSet.from_file(run / "held_out.safetensors"), torch.device("cpu"))
    figures["nats_per_token"] += added
    unregister_results(run)
    write_json(run / "receipt.json", receipt(figures, causal=False))
    register_results(run)


@pytest.mark.parametrize("added", [0.002, -0.002])
def test_a_receipt_with_another_loss_than_the_export_has_is_refused(tmp_path: Path, added: float) -> None:
    run = make_run(tmp_path / "small")
    rewrite_receipt(run, load_file(run / "model.safetensors"), added)
    with pytest.raises(
        CramError, match=r"the exported model has \d\.\d{4} nats per token .* the receipt says .*\. Nothing"
    ):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_list_of_an_export_has_every_file_but_the_card(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()} - {"README.md", "checksums.json"}
    assert read_checksums(exported) == hash_files(exported, names)


def test_large_logits_may_round_differently(tmp_path: Path) -> None:
    run = make_run(tmp_path / "small")
    weights = load_file(run / "model.safetensors")
    weights["head.norm.weight"] *= 200.0  # logits in the hundreds differ by more than 1e-4 in fp32
    unregister_results(run)
    save_file(weights, run / "model.safetensors")
    rewrite_receipt(run, weights)
    assert export_run(run, tmp_path / "out").is_dir()


def test_the_door(run: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cram.export", f"run={run}", f"to={tmp_path / 'mine'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "logits equal" in done.stdout
    assert (tmp_path / "mine" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "tensor", "changed", "message"),
    [
        ("model", "final_norm.weight", None, r"the tensor final_norm\.weight, \[\d+\] of float32, is missing"),
        ("model", "final_norm.weight", torch.zeros(3), r"the tensor final_norm\.weight is \[3\] of float32, and \["),
        ("model", "final_norm.weight", "half", r"the tensor final_norm\.weight is \[\d+\] of float16, and \["),
        ("model", "embedding.weight", None, r"the tensor embedding\.weight is missing"),
        ("model", "embedding.weight", torch.zeros(()), r"the tensor embedding\.weight is \[\] of float32"),
        ("model", "embedding.weight", torch.zeros(2, 32), r"has 2 rows, and the tokenizer has \d+ tokens"),
        ("held_out", "labels", "beyond", r"the tensor labels holds 5000, and numbers from 0 to \d+ are needed"),
        ("held_out", "inputs", torch.zeros(1, 2), r"the tensor inputs is \[1, 2\] of float32, and \["),
    ],
)
def test_tensors_that_do_not_fit_are_named_by_every_door(
    run: Path, tmp_path: Path, name: str, tensor: str, changed: Any, message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))
    unregister_results(copy)
    path = copy / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    there = tensors.pop(tensor)
    if isinstance(changed, str):
        changed = there.half() if changed == "half" else there.index_fill(1, torch.tensor([0]), 5000)
    save_file(tensors if changed is None else {**tensors, tensor: changed}, path, metadata)
    register_results(copy)
    for door in (lambda: main([f"run={copy}", f"to={tmp_path / 'out'}"]), lambda: evaluate_door([f"run={copy}"])):
        with pytest.raises(CramError, match=message) as caught:
            door()
        assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("place", ["/", "file", "file/below", "dangling", "link", "taken"])
def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_left(run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("taken")
    before = {path: path.lstat().st_mtime_ns for path in (*tmp_path.rglob("*"), *run.iterdir())}
    with pytest.raises(CramError, match=r"^to=/") as caught:
        main([f"run={run}", f"to={tmp_path / place}"])
    assert len(str(caught.value).splitlines()) == 1
    assert {path: path.lstat().st_mtime_ns for path in (*tmp_path.rglob("*"), *run.iterdir())} == before


def test_an_export_folder_that_is_a_link_is_not_written_through(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))
    (tmp_path / "elsewhere").mkdir()
    (copy / "export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CramError, match=r"to=.*/export is a link\."):
        main([f"run={copy}"])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_licence_that_the_recipe_of_a_run_says_is_checked_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", replace(CONFIG, card=CardConfig(license="mit\nmodel-index: []")))
    with pytest.raises(CramError, match=r"card\.license=mit\nmodel-index: \[\] is not a licence identifier"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
