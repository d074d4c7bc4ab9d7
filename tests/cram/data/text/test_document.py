from hypothesis import given
from hypothesis import strategies as st

from cram.data.text.document import byte_size


@given(st.text())
def test_byte_size_is_in_utf8(text: str) -> None:
    assert byte_size(text) == len(text.encode())
