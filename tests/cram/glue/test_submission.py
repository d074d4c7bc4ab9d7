"""submission.zip against what gluebenchmark.com asks for, repeated here."""

import zipfile
from pathlib import Path

from cram.glue.submission import describe_wrong_counts, format_predictions, parse_predictions, write_submission

NLI, BINARY, ENTAILED = {"entailment", "neutral", "contradiction"}, {"0", "1"}, {"entailment", "not_entailment"}
FILES: dict[str, tuple[int, set[str] | None]] = {
    "CoLA.tsv": (1_063, BINARY),
    "SST-2.tsv": (1_821, BINARY),
    "MRPC.tsv": (1_725, BINARY),
    "STS-B.tsv": (1_379, None),
    "QQP.tsv": (390_965, BINARY),
    "MNLI-m.tsv": (9_796, NLI),
    "MNLI-mm.tsv": (9_847, NLI),
    "QNLI.tsv": (5_463, ENTAILED),
    "RTE.tsv": (3_000, ENTAILED),
    "WNLI.tsv": (146, BINARY),
    "AX.tsv": (1_104, NLI),
}


def validate(path: Path) -> dict[str, list[str]]:
    """Assert all that the site checks, and return the predictions by file."""
    predictions = {}
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted(FILES)
        for name, (rows, labels) in FILES.items():
            lines = archive.read(name).decode("ascii").split("\n")
            assert lines[0] == "index\tprediction"
            assert lines[-1] == ""
            fields = [line.split("\t") for line in lines[1:-1]]
            assert [field[0] for field in fields] == [str(row) for row in range(rows)]
            predictions[name] = [text for _, text in fields]
            if labels is None:
                assert all(0.0 <= float(text) <= 5.0 for text in predictions[name])
            else:
                assert set(predictions[name]) <= labels
    return predictions


def test_tasks_that_were_not_run_get_the_majority_class(tmp_path: Path) -> None:
    rte = ["entailment", "not_entailment"] * 1_500
    filled = write_submission(tmp_path / "submission.zip", {"rte": rte})
    files = validate(tmp_path / "submission.zip")
    assert files["RTE.tsv"] == rte
    assert "rte" not in filled
    assert len(filled) == 10
    assert set(files["CoLA.tsv"]) == {"1"}
    assert set(files["STS-B.tsv"]) == {"2.701"}


def test_counts_that_the_site_would_refuse_are_named() -> None:
    predictions = {"rte": ["entailment"] * 3_000, "mnli-mm": ["neutral"] * 10, "ax": ["neutral"] * 1_105}
    assert describe_wrong_counts(predictions) == [
        "MNLI-mm has 10 rows, 9,847 are asked for",
        "AX has 1,105 rows, 1,104 are asked for",
    ]
    assert describe_wrong_counts({}) == []


def test_equal_predictions_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_submission(tmp_path / name, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tables_are_read_back() -> None:
    assert parse_predictions(format_predictions(["0.000", "not_entailment"])) == ["0.000", "not_entailment"]
