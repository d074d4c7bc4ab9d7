"""The halves of the held-out documents: by the last bit of the text's hash, and by nothing else."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from cram.evaluation.halves import HALVES, JUDGING, TUNING, halves_of


@given(st.lists(st.text()))
def test_the_last_bit_of_the_hash_decides(texts: list[str]) -> None:
    digests = [sha256(text.encode("utf-8", "surrogatepass")) for text in texts]
    halves = halves_of([digest.hexdigest() for digest in digests])
    assert halves.tolist() == [digest.digest()[-1] % 2 for digest in digests]


def test_about_as_many_documents_are_in_each_half() -> None:
    judging = halves_of([sha256(str(number).encode()).hexdigest() for number in range(10_000)]).mean()
    assert 0.48 < judging < 0.52
    assert HALVES == (TUNING, JUDGING) == ("tuning", "judging")
