"""Texts in which words, lines and paragraphs occur again."""

import random

from hypothesis import strategies as st


@st.composite
def repetitive_texts(draw: st.DrawFn) -> str:
    """Random words, some runs of which are copied over others, some lines of which are copied too.

    A word is a consonant and vowels, so that no two n-grams are the same when their words are joined.
    """
    source = random.Random(draw(st.integers(0, 2**32)))
    longest = draw(st.sampled_from([2, 9]))
    vocabulary = [
        source.choice("bcdfg") + "".join(source.choices("aeiou", k=source.randint(0, longest)))
        for _ in range(draw(st.sampled_from([2, 30, 300, 1000])))
    ]
    words = source.choices(vocabulary, k=draw(st.integers(1, 400)))
    for _ in range(draw(st.integers(0, 6))):
        length, start, to = source.randint(1, 20), source.randrange(len(words)), source.randrange(len(words))
        words[to : to + length] = words[start : start + length]
    every = draw(st.sampled_from([3, 8, 40, 10_000]))
    lines = [" ".join(words[start : start + every]) for start in range(0, len(words), every)]
    for _ in range(draw(st.integers(0, 4))):
        lines[source.randrange(len(lines))] = source.choice(lines)
    ends = draw(st.sampled_from([["\n"], ["\n", "\n\n"], ["\n\n\n"], [", "]]))
    return draw(st.sampled_from(["", "\n\n", "  "])) + "".join(line + source.choice(ends) for line in lines)
