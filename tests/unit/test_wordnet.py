"""WordNet's files are found, and read as its documentation says."""

from __future__ import annotations

import pytest

from slipway.errors import ConfigFileError
from slipway.suite import load_suite
from slipway.wordnet import find_wordnet

LICENCE = "  1 This is no WordNet, but has its form.  \n"
SYNSETS = {
    "noun": [["car", "auto", "motor_car"], ["car", "Railcar"], ["Wagon", "car"]],
    "verb": [["run", "go"]],
    "adj": [["asleep(p)", "sleeping"]],
    "adv": [["quickly", "fast"]],
}


@pytest.fixture
def wordnet(tmp_path):
    """Write a small WordNet; give the environment that names it."""
    for part, synsets in SYNSETS.items():
        data, offsets = LICENCE, {}
        for words in synsets:
            for word in words:
                offsets.setdefault(word.partition("(")[0].lower(), []).append(f"{len(data):08}")
            listed = " ".join(f"{word} 0" for word in words)
            data += f'{len(data):08} 06 {part[0]} {len(words):02x} {listed} 000 | a gloss; "an example"  \n'
        (tmp_path / f"data.{part}").write_text(data)
        lines = [f"{lemma} {part[0]} {len(at)} 1 @ {len(at)} 0 {' '.join(at)}  \n" for lemma, at in offsets.items()]
        (tmp_path / f"index.{part}").write_text(LICENCE + "".join(sorted(lines)))
    return {"WNSEARCHDIR": str(tmp_path)}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("car", {"auto", "motor_car", "railcar", "wagon"}),
        ("auto", {"car", "motor_car"}),
        ("railcar", set()),  # it is spelled with a capital, and promptfoo compares the spelling
        ("go", {"run"}),
        ("sleeping", {"asleep"}),
        ("asleep", set()),  # it is spelled asleep(p)
        ("fast", {"quickly"}),
        ("zebra", set()),
        ("a", set()),
        ("", set()),
        ("ca", set()),
        ("cars", set()),
        ("1", set()),
        ("\ud800", set()),
    ],
)
def test_synonyms_are_the_other_words_of_the_synsets_that_spell_it_so(wordnet, word, expected):
    assert find_wordnet(wordnet).synonyms(word) == expected


@pytest.mark.skipif(find_wordnet({}) is None, reason="Debian's wordnet-base is not installed")
def test_debians_wordnet_is_found_and_read():
    synonyms = find_wordnet({}).synonyms
    assert {"auto", "automobile", "motorcar"} <= synonyms("car")
    assert {"large"} <= synonyms("big")
    assert {"begin"} <= synonyms("start")
    assert {"quickly"} <= synonyms("rapidly")
    assert synonyms("zzzz") == set()


def test_nothing_is_found_where_a_file_is_missing(wordnet, tmp_path):
    (tmp_path / "data.adv").unlink()
    assert find_wordnet(wordnet) is None


def test_file_of_another_kind_is_refused(wordnet, tmp_path):
    (tmp_path / "index.noun").write_text("car has a tail\n")
    with pytest.raises(ConfigFileError, match="WNSEARCHDIR"):
        find_wordnet(wordnet).synonyms("car")


def test_suite_with_meteor_is_graded_where_wordnet_is_and_names_it_elsewhere(wordnet, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text("tests:\n  - vars: {prompt: a, r: my car}\n    assert:\n      - {type: meteor, value: '{{r}}'}\n")
    applied = load_suite(suite, environ=wordnet)
    assert applied.unsupported == ()
    [check] = applied.cases[0].checks
    assert check.value == [["my car", {"car": ["auto", "motor_car", "railcar", "wagon"]}]]
    lacking = load_suite(suite, environ={"WNSEARCHDIR": str(tmp_path / "nowhere")})
    [unsupported] = lacking.unsupported
    assert (unsupported.type, unsupported.where) == ("meteor", "suite.yaml:4")
    assert "wordnet-base" in unsupported.reason
    assert applied.digest != lacking.digest
