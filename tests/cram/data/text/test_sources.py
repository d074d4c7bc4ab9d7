import pickle
from pathlib import Path

import pytest

from cram.data.text.source import Source
from cram.data.text.sources import open_source


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


@pytest.mark.parametrize("spec", ["{}/*.jsonl", "hf:{}"])
def test_a_source_reads_the_same_after_pickling(corpus: Path, spec: str) -> None:
    source = open_source(spec.format(corpus), text_field="body")
    assert len(texts(source)) == 18
    assert texts(pickle.loads(pickle.dumps(source))) == texts(source)
