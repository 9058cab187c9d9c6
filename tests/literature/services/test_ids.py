"""Names of papers: every usual spelling has one normal form, and what is no name is said to be none."""

from __future__ import annotations

import pytest

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.services.base import PaperIds
from posttrain_crew.tools.literature.services.ids import clash, merge_ids, normal_title, parse_ids, s2_name

HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text",
    [
        "2402.03300",
        " 2402.03300v3 ",
        "arXiv:2402.03300",
        "arxiv: 2402.03300v12",
        "https://arxiv.org/abs/2402.03300",
        "http://www.arxiv.org/abs/2402.03300v1?context=cs",
        "https://export.arxiv.org/pdf/2402.03300v3.pdf#page=4",
        "arxiv.org/html/2402.03300v2/",
        "https://arxiv.org/e-print/2402.03300",
        "https://ar5iv.labs.arxiv.org/html/2402.03300",
        "https://ar5iv.org/abs/2402.03300",
        "https://www.alphaxiv.org/abs/2402.03300",
        "https://huggingface.co/papers/2402.03300",
        "https://hf.co/papers/2402.03300.md",
        "10.48550/arXiv.2402.03300",
        "10.48550/ARXIV.2402.03300v2",
        "https://doi.org/10.48550/arXiv.2402.03300",
        "doi:10.48550/arxiv.2402.03300",
    ],
)
def test_spellings_of_an_arxiv_id(text: str) -> None:
    assert parse_ids(text) == PaperIds(arxiv="2402.03300")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hep-th/9901001v2", "arxiv:hep-th/9901001"),
        ("math.GT/0309136", "arxiv:math/0309136"),
        ("https://arxiv.org/abs/cs.CL/0001001", "arxiv:cs/0001001"),
        ("10.18653/V1/N18-3011", "doi:10.18653/v1/n18-3011"),
        ("https://dx.doi.org/10.18653/v1/N18-3011", "doi:10.18653/v1/n18-3011"),
        ("DOI:10.18653/v1/N18-3011", "doi:10.18653/v1/n18-3011"),
        ("https://doi.org/10.1145%2F3292500.3330701", "doi:10.1145/3292500.3330701"),
        ("https://dl.acm.org/doi/abs/10.1145/3292500.3330701", "doi:10.1145/3292500.3330701"),
        ("10.1002/(SICI)1097-4571(199806)49:8<693::AID-ASI4>3.0.CO;2-O",) * 1
        + ("doi:10.1002/(sici)1097-4571(199806)49:8<693::aid-asi4>3.0.co;2-o",),
        ("CorpusId:0267412607", "corpus:267412607"),
        ("corpusid: 267412607", "corpus:267412607"),
        ("https://api.semanticscholar.org/CorpusID:267412607", "corpus:267412607"),
        (HEX.upper(), f"s2:{HEX}"),
        (f"https://www.semanticscholar.org/paper/DeepSeekMath-Pushing/{HEX}", f"s2:{HEX}"),
        (f"https://www.semanticscholar.org/paper/{HEX}?sort=relevance#citing-papers", f"s2:{HEX}"),
        (f"https://www.semanticscholar.org/reader/{HEX}", f"s2:{HEX}"),
    ],
)
def test_other_names(text: str, name: str) -> None:
    assert parse_ids(text).key == name
    assert parse_ids(name).key == name, "a key is a spelling, too"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "worked solutions",
        "2413.00001",
        "2402.033",
        "2402.03300 and more",
        "10.1/x",
        "10.1234/../../secrets",
        "../../etc/passwd",
        "https://evil.example/2402.03300",
        "https://arxiv.org/list/cs.CL/recent",
        HEX[:-1],
        "CorpusId:12x",
        "2402.03300\n2402.03301",
        "x" * 10_000,
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_ids(text)
    assert len(str(caught.value)) < 400


def test_merging_keeps_the_first_where_names_differ() -> None:
    one, other = PaperIds(arxiv="1", doi="a"), PaperIds(arxiv="2", corpus="7")
    assert merge_ids(one, other) == PaperIds(arxiv="1", doi="a", corpus="7")


def test_a_clash_is_a_difference_with_nothing_in_common() -> None:
    assert clash(PaperIds(arxiv="1"), PaperIds(arxiv="2"))
    assert not clash(PaperIds(arxiv="1"), PaperIds(doi="a"))
    assert not clash(PaperIds(arxiv="1", doi="a"), PaperIds(arxiv="1", doi="b"))


def test_titles_are_equal_in_any_typesetting() -> None:
    assert normal_title("Group Relative Policy\n Optimization") == normal_title("group-relative policy optimization.")
    assert normal_title("Über Schrödingers Gleichung") == normal_title("uber schrodingers gleichung")
    assert normal_title("Introduction") == "introduction" and normal_title("Overview") == ""


def test_semantic_scholar_is_asked_by_the_best_known_name() -> None:
    everything = PaperIds(arxiv="2402.03300", doi="10.1/x", corpus="7", s2=HEX)
    assert s2_name(everything) == "ARXIV:2402.03300"
    assert s2_name(PaperIds(doi="10.1/x", corpus="7")) == "DOI:10.1/x"
    assert s2_name(PaperIds(corpus="7", s2=HEX)) == "CorpusId:7"
    assert s2_name(PaperIds(s2=HEX)) == HEX and s2_name(PaperIds()) is None
