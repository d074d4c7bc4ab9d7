"""An exported folder, used as a new user would use it: by stock `transformers` alone."""

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cram.hub.kinds import stock_model
from cram.hub.modernbert import MODERNBERT
from cram.hub.qwen3 import QWEN3


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
    # Keys for which loaders in other languages have no default.
    assert {"local_attention", "initializer_cutoff_factor", "pad_token_id", "classifier_activation"} <= config.keys()


def test_all_files_have_the_same_permissions(exported: Path) -> None:
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
    expected = json.loads((folder.parent / "receipt.json").read_text())["held_out"]["nats_per_token"]
    assert float(printed.getvalue().split()[0]) == pytest.approx(expected, abs=1e-3)


def test_card_gives_loss_baseline_and_rules(run: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    nats = json.loads((run / "receipt.json").read_text())["held_out"]["nats_per_token"]
    for part in (
        f"{nats:.3f} nats",
        "unigram baseline 4.500",
        "- [x] one device: 1",
        "- [ ] no sample repeated: 3",
        "`pydocs`",
    ):
        assert part in card


def test_fill_mask_pipeline(exported: Path) -> None:
    from transformers import pipeline

    answers = pipeline("fill-mask", str(exported), device="cpu")("the cat sat on a [MASK].", top_k=3)
    assert len(answers) == 3
    assert all(answer["token_str"] for answer in answers)


def test_tokenizer_adds_and_cuts(exported: Path, text: Callable[[int], str]) -> None:
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
        "Qwen3ForCausalLM",
        "AutoModelForCausalLM",
        "pipeline_tag: text-generation",
        "unigram baseline 4.500",
        "A decoder of",
        f"| held-out bits per byte | {bits:.3f} (bigram baseline of bytes 3.750) |",
        'pipeline("text-generation"',
    ):
        assert part in card
    assert "[MASK]" not in card


def test_texts_of_different_length_are_continued_in_a_batch_as_alone(decoder: Path) -> None:
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
    generation = write.model.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id, generation.max_new_tokens) == (
        2,
        3,
        0,
        12,
    )
    ids = write("the cat sat", return_tensors=True)[0]["generated_token_ids"]
    prompt = write.tokenizer("the cat sat")["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert len(prompt) < len(ids) <= len(prompt) + 12


def test_a_decoders_tokenizer_adds_no_separator_and_decodes_a_continuation(decoder: Path) -> None:
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
