from __future__ import annotations

from speko_anyio.gateway.local._grammar import Grammar

GRAMMAR = Grammar(
    ("hello", "go to <place> now", "buy <thing>"), {"place": ("new york", "rome"), "thing": ("zzz",)}
)


def test_whole_phrases_match_and_beginnings_do_not() -> None:
    pattern = GRAMMAR.pattern()
    assert pattern.fullmatch("go to new york now")
    assert not pattern.fullmatch("go to new york")
    assert not pattern.fullmatch("go to now")


def test_unpronounceable_templates_and_slot_phrases_go() -> None:
    known = {"hello", "go", "to", "now", "new", "rome", "buy"}
    assert GRAMMAR.restricted(known.__contains__) == Grammar(
        ("hello", "go to <place> now"), {"place": ("rome",), "thing": ()}
    )


def test_nothing_that_is_no_word_reaches_the_grammar_file() -> None:
    nasty = Grammar(("a; public <x> = b", "c | d", "<s>", "C3"), {"s": ("e; f", "g*")})
    assert nasty.restricted(lambda _: True).templates == ()


def test_jsgf() -> None:
    assert Grammar(("hello", "in <p>"), {"p": ("rome", "oslo")}).jsgf() == (
        "#JSGF V1.0;\ngrammar known;\npublic <phrase> = hello | in <p>;\n<p> = rome | oslo;\n"
    )


def test_an_empty_grammar_matches_no_word() -> None:
    assert not Grammar(()).pattern().fullmatch("hello")


def test_phrases_without_a_word_go() -> None:
    grammar = Grammar(("", "hello", "<none>", "in <some>"), {"none": ("", " "), "some": ("", "rome")})
    assert grammar.restricted(lambda _: True) == Grammar(
        ("hello", "in <some>"), {"none": (), "some": ("rome",)}
    )
