from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning.held_out_split import hash_text
from cram.data.preparation.samples import EXCERPT, SAMPLES, Sample, add_samples, make_sample
from cram.data.text.document import Document, faulty_document


@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 99)), max_size=40), max_size=6))
def test_the_samples_with_the_lowest_hashes_are_kept(batches: list[list[tuple[str, int]]]) -> None:
    total: dict[str, list[Sample]] = {}
    for batch in batches:
        samples: dict[str, list[Sample]] = {}
        for reason, number in batch:
            add_samples(samples, {reason: [Sample(number, "", str(number))]})
        add_samples(total, samples)
    for reason in "ab":
        numbers = {number for batch in batches for name, number in batch if name == reason}
        assert [sample.hash for sample in total.get(reason, [])] == sorted(numbers)[:SAMPLES]


def test_a_sample_is_the_start_of_the_text_and_names_the_file_without_its_folder() -> None:
    text = "a long text " * EXCERPT
    sample = make_sample(Document(text, "some/folder/a.jsonl:3"), text)
    assert sample == Sample(hash_text(text), "a.jsonl:3", text[:EXCERPT])


def test_the_sample_of_a_broken_document_is_its_fault() -> None:
    document = faulty_document("folder/a.jsonl:3", "broken JSON")
    assert make_sample(document, "") == Sample(hash_text("a.jsonl:3"), "a.jsonl:3", "folder/a.jsonl:3: broken JSON")
