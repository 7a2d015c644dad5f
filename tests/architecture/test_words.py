"""No code word is taken away or used a second time for another thing: what is stored keeps its meaning."""

from docs.generate_words import RETIRED, known, words


def test_a_word_that_was_ever_stored_is_still_understood_or_has_a_tombstone() -> None:
    used = words()
    for name, ever in known().items():
        gone = set(ever) - set(used.get(name, ())) - RETIRED.get(name, frozenset())
        assert not gone, f"{name}: put {sorted(gone)} among RETIRED in docs/generate_words.py"


def test_a_retired_word_is_never_used_again() -> None:
    for name, gone in RETIRED.items():
        assert not gone & set(words()[name])
        assert gone <= set(known()[name])


def test_the_lists_have_no_word_twice() -> None:
    for name, used in words().items():
        assert len(used) == len(set(used)), name
