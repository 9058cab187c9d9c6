"""Letters and powers that only look like those of a benchmark: found as if they were, and other scripts stay apart."""

from __future__ import annotations

import pytest
from benchmarks.general_questions import general_items

from posttrain_crew.tools.data.contamination import CHECKS, ContaminationIndex
from posttrain_crew.tools.data.formats import read_row
from posttrain_crew.tools.data.planted import DISGUISES, dressed
from posttrain_crew.tools.data.quantities import read_text
from posttrain_crew.tools.data.text import folded, normalised, unmasked
from posttrain_crew.tools.sources import BenchmarkItem

CYRILLIC = str.maketrans("aceijopsxyABCEHIJKMOPSTXY", "асеіјорѕхуАВСЕНІЈКМОРЅТХУ")
GREEK = str.maketrans("aoivupkABEHIKMNOPTXYZ", "αοινυρκΑΒΕΗΙΚΜΝΟΡΤΧΥΖ")

RUSSIAN = [
    BenchmarkItem("1", "Какой органоид растительной клетки улавливает энергию солнечного света и запасает её?",
                  ("хлоропласт", "митохондрия", "рибосома", "ядро"), "A"),
    BenchmarkItem("2", "Поезд проходит 120 км за 2 часа. Какова его средняя скорость на всём пути до станции?",
                  ("60 км/ч", "40 км/ч", "80 км/ч", "100 км/ч"), "A"),
    BenchmarkItem("3", "Кто написал роман о войне двенадцатого года, в котором выведены семьи Ростовых и Болконских?",
                  (), "Лев Толстой"),
]  # fmt: skip
GREEKS = [
    BenchmarkItem("1", "Ποιο οργανίδιο του φυτικού κυττάρου δεσμεύει την ενέργεια του ήλιου και την αποθηκεύει;",
                  (), "ο χλωροπλάστης"),
    BenchmarkItem("2", "Πόσα χιλιόμετρα διανύει ένα τρένο σε 3 ώρες με ταχύτητα 80 χιλιομέτρων την ώρα;", (), "240"),
]  # fmt: skip


@pytest.fixture(scope="module")
def index() -> ContaminationIndex:
    return ContaminationIndex(general_items())


@pytest.mark.parametrize("table", [CYRILLIC, GREEK])
def test_whole_rows_in_look_alikes_are_found_labels_and_all(table: dict[int, int], index: ContaminationIndex) -> None:
    def changed(value: object) -> object:
        if isinstance(value, str):
            return value.translate(table)
        if isinstance(value, list):
            return [changed(part) for part in value]
        if isinstance(value, dict):
            return {k: v if k in ("role", "from") else changed(v) for k, v in value.items()}
        return value

    rows = [changed(dressed(item, dress)) for dress, item in enumerate(general_items())]
    found = [index.match_raw(row) for row in rows]  # type: ignore[arg-type]
    assert None not in found
    assert sum(name == "exact" for name in found) >= 0.8 * len(found)


@pytest.mark.parametrize("check", ["exact", "ngram13", "ngram8", "near_duplicate", "reworded"])
def test_every_check_sees_through_look_alikes(check: str, index: ContaminationIndex) -> None:
    rows = [row for kind in ("exact", "reworded", "other_units") for row in _planted(kind)]
    plain = [row for row in rows if index.match_raw(row) == check]  # type: ignore[arg-type]
    assert check in CHECKS and (plain or check == "near_duplicate")
    for table in (CYRILLIC, GREEK):
        for row in plain:
            asked = {name: text.translate(table) if name == "question" else text for name, text in row.items()}
            assert index.match_raw(asked) == check, asked  # type: ignore[arg-type]


def _planted(kind: str) -> list[dict[str, str]]:
    import random

    changed = [DISGUISES[kind](item, random.Random(f"{kind} {item.id}")) for item in general_items()]
    return [{"question": item.question, "answer": item.answer} for item in changed if item and not item.choices]


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("Ноw fаѕt", "How fast"), ("Ηοw ΜANΥ", "How MANY"), ("Ꮃhу nοt", "Why not"),
        ("H̶o̶w̶ fäst", "How fast"), ("ʜᴏᴡ", "how"), ("𝐇𝗼𝘄 𝚏𝑎𝓈𝔱", "How fast"), ("Ｈｏｗ", "How"), ("Ⓗⓞⓦ", "How"),
        ("H\u200bo\u2060w\u00ad f\u202east\u2069", "How fast"),
        ("Schrödinger's naïve Ångström", "Schrodinger's naive Angstrom"),
    ],
)  # fmt: skip
def test_one_letter_of_all_that_look_alike(disguised: str, plain: str) -> None:
    assert unmasked(disguised) == plain


@pytest.mark.parametrize(
    "page", ["&#1072;n&alpha;lysis &#x435;nds", "an&shy;alysis &#8203;ends", "&Alpha;nalysis ends"]
)
def test_entities_hide_no_letters(page: str) -> None:
    assert read_text(page).words == ("analysis", "ends")


@pytest.mark.parametrize("items", [RUSSIAN, GREEKS])
def test_a_benchmark_in_another_script_is_compared_in_it(items: list[BenchmarkItem]) -> None:
    index = ContaminationIndex(items)
    for item in items:
        assert index.match_raw({"question": item.question, "answer": "?"}) == "exact"
        assert index.match_raw({"question": item.question.upper(), "answer": "?"}) in ("exact", "ngram13", "ngram8")
        assert index.match_raw({"prompt": f"Пожалуйста: {item.question}", "completion": "?"}) is not None
    others = (
        "Какой органоид животной клетки собирает белки по матрице и состоит из двух частиц?",
        "Автобус проходит 90 км за 2 часа. Какова его средняя скорость на всём пути до станции?",
        "Кто написал поэму о мёртвых душах, в которой выведены помещики Манилов и Собакевич?",
        "Ποιος ποταμός περνά από τη Βιέννη και τη Βουδαπέστη και χύνεται στη Μαύρη Θάλασσα;",
        "Πόσα χιλιόμετρα διανύει ένα πλοίο σε 5 ώρες με ταχύτητα 30 χιλιομέτρων την ώρα;",
        "What is the capital city of Australia?",
    )
    assert [index.match_raw({"question": text, "answer": "?"}) for text in others] == [None] * len(others)


def test_russian_labels_are_not_taken_for_latin_ones() -> None:
    index = ContaminationIndex(RUSSIAN)
    for item in RUSSIAN[:2]:
        lines = "\n".join(f"{label}) {choice}" for label, choice in zip("АБВГ", item.choices, strict=True))
        assert index.match_raw({"prompt": f"{item.question}\n{lines}", "completion": "А"}) is not None


def test_letters_of_a_formula_stay_apart_as_choices() -> None:
    choices = ["the energy is hν", "the energy is hv", "5 μm", "5 mm"]
    row = read_row({"question": "Which is right?", "choices": choices, "answer": "the energy is hν"})
    assert row is not None and row.answer == "A"
    assert len({normalised(choice) for choice in choices}) == 4 and folded("αβ") == "αβ"
    assert read_text("5 μm").scaled != read_text("5 mm").scaled


@pytest.mark.parametrize(
    ("lost", "whole"),
    [
        ("3.2×108 m/s", "3.2×10^8 m/s"), ("6.02 x 1023", "$6.02\\times 10^{23}$"), ("1.5·10-3 T", "0.0015 T"),
        ("1.5×10−12", "1.5e-12"), ("5 × 10–7", "5 × 10⁻⁷"), ("8.3 J mol-1", "8.3 J mol^-1"), ("1700 cm-1", "1700 cm⁻¹"),
        ("9.8 m/s2", "9.8 m/s²"),
    ],
)  # fmt: skip
def test_powers_that_lost_their_raised_place(lost: str, whole: str) -> None:
    assert (read_text(lost).words, read_text(lost).digits) == (read_text(whole).words, read_text(whole).digits)


@pytest.mark.parametrize("text", ["3 × 1000", "3 × 10", "12 × 108", "3 * 108", "3 × 108,000", "3 × 10.5", "k-1 of n-2"])
def test_what_is_no_lost_power_stays(text: str) -> None:
    assert not any(len(word) > 6 for word in read_text(text).words)
    assert len(read_text(text).digits) == 2
