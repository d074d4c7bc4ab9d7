"""Checkpoints of every kind: loaded, or refused with a reason."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cram.errors import CramError
from cram.glue.pretrained import open_pretrained
from cram.glue.tasks import TASKS
from cram.run.checksums import unregister_results


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the stock encoder, to break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def change(folder: Path, **keys: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_a_model_is_the_checkpoint_with_a_new_classifier(checkpoint: Path) -> None:
    pretrained = open_pretrained(str(checkpoint), 128, "first")
    assert pretrained.longest == 32
    ours = load_file(checkpoint / "model.safetensors")
    models = [pretrained.new_classifier(TASKS["mnli"], seed, 0.1, "first", untrained=False) for seed in (0, 0, 1)]
    for name, tensor in models[0].state_dict().items():
        assert name.startswith("classifier.") or torch.equal(tensor, ours[name])
    weights = [model.state_dict()["classifier.weight"] for model in models]
    assert weights[0].shape == (3, 32)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_dropout_is_on_wherever_the_class_has_it(checkpoint: Path) -> None:
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    model = pretrained.new_classifier(TASKS["cola"], 0, 0.25, "first", untrained=False)
    shares = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert len(shares) == 1 + 2 * 2 + 1  # embeddings; attention's output and the MLP of each block; classifier
    assert set(shares) == {0.25}
    assert model.config.attention_dropout == 0.25


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Albert", {"attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout_prob"}),
        ("T5", {"dropout_rate", "classifier_dropout"}),
        ("Electra", {"attention_probs_dropout_prob", "hidden_dropout_prob", "summary_last_dropout"}),
    ],
)
def test_dropouts_of_peers(checkpoint: Path, name: str, keys: set[str]) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")()
    assert set(replace(open_pretrained(str(checkpoint), 32, "first"), config=config).dropout_settings(0.1)) >= keys


def test_pooling_and_labels_reach_the_config(checkpoint: Path) -> None:
    model = open_pretrained(str(checkpoint), 32, "mean").new_classifier(TASKS["rte"], 0, 0.1, "mean", untrained=False)
    assert model.config.classifier_pooling == "mean"
    assert model.config.id2label == {0: "entailment", 1: "not_entailment"}
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    regression = pretrained.new_classifier(TASKS["stsb"], 0, 0.1, "first", untrained=False)
    assert (regression.config.num_labels, regression.config.problem_type) == (1, "regression")


def test_untrained_weights_are_the_seeds(checkpoint: Path) -> None:
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    one, same, other = (
        pretrained.new_classifier(TASKS["cola"], seed, 0.1, "first", untrained=True) for seed in (0, 0, 1)
    )
    name = "model.layers.0.attn.Wqkv.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], load_file(checkpoint / "model.safetensors")[name])


def test_a_run_is_fine_tuned_from_its_export(new_run: Callable[..., Path], tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    pretrained = open_pretrained(str(run), 128, "first")
    assert (run / "export" / "config.json").is_file()
    assert pretrained.identity == open_pretrained(str(run / "export"), 128, "first").identity
    (run / "export" / "config.json").write_text("{}")
    for folder, remedy in (
        (run, "Remove the folder: it is made again"),
        (run / "export", "Export the run again, to an"),
    ):
        with pytest.raises(CramError, match=rf"config.json: damaged or edited, .* {remedy}"):
            open_pretrained(str(folder), 128, "first")
    (run / "export" / "checksums.json").unlink()
    with pytest.raises(CramError, match=r"checksums.json: there is no such file. Remove the folder: it is made again."):
        open_pretrained(str(run), 128, "first")
    unregister_results(run)
    with pytest.raises(CramError, match=r"there is no receipt\.json"):
        open_pretrained(str(run), 128, "first")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("crammed", "cannot be fine-tuned: transformers has no class that computes model.kind=crammed"),
        ("decoder", "is a decoder; GLUE is for encoders. Train model.kind=encoder"),
    ],
)
def test_runs_of_other_kinds_are_refused(new_run: Callable[..., Path], tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(CramError, match=message):
        open_pretrained(str(new_run(tmp_path / "run", kind)), 128, "first")


BERT_SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def bert(folder: Path, checkpoint: Path, name: str = "BertForMaskedLM", **keys: object) -> Path:
    """A tiny peer of another class."""
    import transformers

    config = transformers.BertConfig(**BERT_SIZES, **keys)
    getattr(transformers, name)(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / file, folder / file)
    content = json.loads((folder / "tokenizer_config.json").read_text())
    names = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content | {"model_input_names": names}))
    return folder


def test_a_peer_of_another_class(checkpoint: Path, tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert", checkpoint)
    pretrained = open_pretrained(str(folder), 128, "first")
    assert pretrained.longest == 32
    model = pretrained.new_classifier(TASKS["cola"], 0, 0.2, "first", untrained=False)
    assert type(model).__name__ == "BertForSequenceClassification"
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.2}
    with pytest.raises(CramError, match=r"pooling=mean: bert always takes the first token\. Leave pooling= out"):
        open_pretrained(str(folder), 128, "mean")
    assert open_pretrained(f"hf:{folder}", 128, "first").identity == pretrained.identity


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("BertForSequenceClassification", {}, "is a BertForSequenceClassification, fine-tuned already; GLUE starts"),
        ("BertLMHeadModel", {"is_decoder": True}, "is a BertLMHeadModel, a decoder; GLUE is for encoders"),
    ],
)
def test_other_models_are_refused(
    checkpoint: Path, tmp_path: Path, name: str, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(CramError, match=message):
        open_pretrained(str(bert(tmp_path / "bert", checkpoint, name, **keys)), 128, "first")


def test_a_discriminator_is_a_start_until_it_is_fine_tuned(copy: Path) -> None:
    change(copy, architectures=["ModernBertForSequenceClassification"])
    assert open_pretrained(str(copy), 128, "first").source == str(copy)
    weights = load_file(copy / "model.safetensors") | {"classifier.weight": torch.zeros(2, 32)}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CramError, match="is a ModernBertForSequenceClassification, fine-tuned already"):
        open_pretrained(str(copy), 128, "first")


def test_a_folder_that_is_not_a_checkpoint_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CramError, match=r"run=.*/none is not a checkpoint: there is no such folder\. A model of the Hub is run=hf:NAME"
    ):
        open_pretrained(str(tmp_path / "none"), 128, "first")
    with pytest.raises(CramError, match=r"it has neither recipe\.yaml \(a run\) nor config\.json \(an exported"):
        open_pretrained(str(tmp_path), 128, "first")
    (copy / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(CramError, match=r"model\.safetensors is damaged or not a safetensors file"):
        open_pretrained(str(copy), 128, "first")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CramError, match=r"has no model\.safetensors; pickled weights are not read"):
        open_pretrained(str(copy), 128, "first")
    change(copy, model_type="madeup")
    with pytest.raises(CramError, match="cannot be loaded by transformers"):
        open_pretrained(str(copy), 128, "first")


@pytest.mark.parametrize("lacking", [{"backend_tokenizer": None}, {"pad_token_id": None}])
def test_a_tokenizer_without_a_fast_backend_or_padding_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, lacking: dict[str, None]
) -> None:
    tokenizer = SimpleNamespace(**({"backend_tokenizer": object(), "pad_token_id": 0} | lacking))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: tokenizer)
    with pytest.raises(CramError, match=r"its tokenizer has no fast backend, or no padding token; give another"):
        open_pretrained(str(checkpoint), 128, "first")


def test_a_class_that_cannot_classify_texts_is_refused(copy: Path) -> None:
    change(copy, model_type="vit", architectures=["ViTModel"])
    with pytest.raises(CramError, match="is a ViTModel; transformers has no class of it that classifies texts"):
        open_pretrained(str(copy), 128, "first")


def test_weights_that_cannot_be_fetched_from_the_hub_are_reported(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the name has no file\nnamed so")

    opened = open_pretrained(str(checkpoint), 128, "first")
    monkeypatch.setattr("cram.glue.pretrained._load", lambda *_: (opened.config, opened.tokenizer))
    monkeypatch.setattr("transformers.utils.hub.cached_file", refuse)
    message = r"run=hf:owner/name: no model\.safetensors could be fetched \(the name has no file named so\)"
    with pytest.raises(CramError, match=message):
        open_pretrained("hf:owner/name", 128, "first")


def test_weights_that_lack_a_part_of_the_encoder_are_refused(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    del state["model.layers.1.mlp.Wi.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    pretrained = open_pretrained(str(copy), 128, "first")
    with pytest.raises(CramError, match=r"lack 1 tensors of ModernBert.*, model\.layers\.1\.mlp\.Wi\.weight first"):
        pretrained.new_classifier(TASKS["cola"], 0, 0.1, "first", untrained=False)


def test_a_saved_model_keeps_the_keys_of_other_versions(checkpoint: Path, tmp_path: Path) -> None:
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    pretrained.save(pretrained.new_classifier(TASKS["rte"], 0, 0.1, "first", untrained=False), tmp_path / "saved")
    assert len({path.stat().st_mode for path in (tmp_path / "saved").iterdir()}) == 1
    before, after = (json.loads((path / "config.json").read_text()) for path in (checkpoint, tmp_path / "saved"))
    assert set(before) <= set(after)
    assert after["global_rope_theta"] == before["global_rope_theta"]
    assert after["architectures"] == ["ModernBertForSequenceClassification"]
    assert after["id2label"] == {"0": "entailment", "1": "not_entailment"}


WRONG_CONFIGS: list[dict[str, Any]] = [
    {"hidden_size": "wide"},
    {"hidden_size": [1]},
    {"num_attention_heads": 0},
    {"num_hidden_layers": -1},
    {"vocab_size": None},
    {"vocab_size": 3},
    {"architectures": 3},
    {"architectures": [3]},
    {"model_type": {"a": 1}},
    {"max_position_embeddings": "long"},
    {"max_position_embeddings": -1},
    {"layer_types": "all"},
    {"layer_types": 7},
    {"rope_parameters": 3},
    {"hidden_activation": "madeup"},
    {"norm_eps": "small"},
    {"pad_token_id": "none"},
    {"dtype": 3},
    {"attention_dropout": {}},
    {"auto_map": {"AutoConfig": "mine.Config"}, "model_type": "mine"},
    {"intermediate_size": 7},
]


@pytest.mark.parametrize("changed", WRONG_CONFIGS)
def test_a_config_with_values_of_wrong_types_is_reported_in_one_line(copy: Path, changed: dict[str, Any]) -> None:
    change(copy, **changed)
    try:
        pretrained = open_pretrained(str(copy), 16, "first")
        model = pretrained.new_classifier(TASKS["cola"], 0, 0.1, "first", untrained=False).eval()
        model(input_ids=torch.zeros(1, 4, dtype=torch.long))
    except CramError as error:
        assert str(error).startswith(f"run={copy}") and len(str(error).splitlines()) <= 2


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"null", b"\xff", b"{", b'{"model_type": 3, "added_tokens_decoder": 3}', b"[" * 9999]
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_reported_in_one_line(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(CramError, match=r"^run=.* cannot be loaded by transformers \(.+\)\.$") as caught:
        open_pretrained(str(copy), 16, "first")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["added_tokens", "model", "normalizer", "post_processor", "decoder"])
@pytest.mark.parametrize("value", [3, "text", [3], {"type": "Madeup"}])
def test_a_tokenizer_with_values_of_wrong_types_is_reported_in_one_line(copy: Path, name: str, value: Any) -> None:
    path = copy / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CramError, match=r"^run=.* cannot be loaded by transformers \(.+\)\.$") as caught:
        open_pretrained(str(copy), 16, "first")
    assert len(str(caught.value).splitlines()) == 1


def test_weights_of_wrong_shapes_are_reported_in_one_line(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    name = "model.layers.1.mlp.Wi.weight"
    save_file(state | {name: state[name][:-2].clone()}, copy / "model.safetensors", metadata={"format": "pt"})
    pretrained = open_pretrained(str(copy), 16, "first")
    with pytest.raises(CramError, match=r"^run=.*copy.* cannot be loaded by transformers \(.+\)\.$"):
        pretrained.new_classifier(TASKS["cola"], 0, 0.1, "first", untrained=False)
