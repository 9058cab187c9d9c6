"""The shipped library holds its own rules, finds what a user would look for, and says what is wrong with a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.library import SHIPPED, Library, Paper, normalise_id
from posttrain_crew.tools.literature.vocabulary import METHODS, TECHNIQUES, TRL_FIELDS


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.load()


def paper(arxiv_id: str, cites: tuple[str, ...] = (), year: int = 2024, title: str = "A paper on nothing") -> Paper:
    return Paper(
        arxiv_id=arxiv_id,
        title=title,
        year=year,
        authors=["A. Author"],
        techniques=["sft"],
        findings=["A finding that is long enough to be one."],
        cites=list(cites),
        checked="memory",
    )


ENTRY = """
- arxiv_id: "2401.00001"
  title: A paper on nothing
  year: 2024
  authors: [A. Author]
  techniques: [sft]
  findings: [A finding that is long enough to be one.]
  checked: memory
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """The message with which loading `path` is refused; it is always one paragraph."""
    with pytest.raises(InputError) as error:
        Library.load([path])
    assert "\n" not in str(error.value)
    return str(error.value)


# the shipped papers


def test_every_shipped_paper_is_well_formed(library: Library) -> None:
    assert len(library) >= 100
    assert sum(1 for item in library if item.reported) >= 40
    for item in library:
        assert re.fullmatch(r"\d{4}\.\d{5}", item.arxiv_id)
        assert set(item.techniques) <= set(TECHNIQUES)
        assert set(item.hyperparameters) <= set(METHODS)
        assert all(set(fields) <= TRL_FIELDS for fields in item.hyperparameters.values())
        assert all(cited in library for cited in item.cites)


def test_the_id_tells_the_year_and_nobody_cites_much_later_work(library: Library) -> None:
    for item in library:
        assert item.year == 2000 + int(item.arxiv_id[:2])
        for cited in item.cites:  # later versions do cite work of the following months
            assert library.get(cited).year <= item.year + 1, f"{item.arxiv_id} cites {cited}"


def test_every_technique_is_used(library: Library) -> None:
    assert {tag for paper in library for tag in paper.techniques} == set(TECHNIQUES)


def test_field_names_are_those_of_the_installed_trainers() -> None:
    """Read from the sources: importing trl would take longer than all tests of this folder."""
    import importlib.util

    sources = ""
    for package, files in {
        "transformers": ["training_args.py"],
        "trl": [f"trainer/{name}_config.py" for name in ("sft", "dpo", "grpo", "model")],
    }.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        sources += "".join((Path(spec.origin).parent / file).read_text(encoding="utf-8") for file in files)
    missing = [name for name in sorted(TRL_FIELDS) if not re.search(rf"^    {name}:", sources, re.M)]
    assert missing == []


# search


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("group relative policy optimization", "2402.03300"),
        ("direct preference optimization", "2305.18290"),
        ("rationales teach a small model with less data", "2305.02301"),
        ("rephrased test items evade n-gram contamination checks", "2311.04850"),
        ("error bars paired differences of two models", "2411.00640"),
        ("graduate level science questions by experts", "2311.12022"),
        ("LoRA adapters forget less", "2405.09673"),
        ("random rewards raise Qwen", "2506.10947"),
    ],
)
def test_search_puts_the_obvious_paper_first(library: Library, query: str, first: str) -> None:
    assert library.search(query)[0].arxiv_id == first


def test_search_is_bounded_filtered_and_repeatable(library: Library) -> None:
    hits = library.search("reinforcement learning with verifiable rewards", technique="grpo", year_from=2025, limit=5)
    assert len(hits) == 5
    assert all("grpo" in hit.techniques and hit.year >= 2025 and "\n" not in hit.finding for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits == Library.load().search("reinforcement learning with verifiable rewards", "grpo", 2025, 5)


def test_ties_go_to_the_newer_paper_then_to_the_id() -> None:
    same = Library([paper("2301.00002", year=2023), paper("2401.00009"), paper("2401.00003")])
    assert [hit.arxiv_id for hit in same.search("nothing")] == ["2401.00003", "2401.00009", "2301.00002"]


def test_search_that_matches_nothing_is_empty_and_an_empty_query_lists_the_most_cited(library: Library) -> None:
    assert library.search("zzzz qqqq") == []
    assert library.search("", technique="benchmark", limit=1)[0].arxiv_id in {"2110.14168", "2103.03874", "2009.03300"}


def test_an_unknown_technique_names_the_nearest_one(library: Library) -> None:
    with pytest.raises(InputError, match="grpo"):
        library.search("anything", technique="grop")


# ids


@pytest.mark.parametrize(
    "spelling",
    [
        "2402.03300",
        "arXiv:2402.03300v3",
        "https://arxiv.org/abs/2402.03300",
        "https://huggingface.co/papers/2402.03300",
    ],
)
def test_get_takes_every_usual_spelling(library: Library, spelling: str) -> None:
    assert library.get(spelling).title.startswith("DeepSeekMath")


def test_an_unknown_id_names_near_ones_and_nonsense_is_no_id(library: Library) -> None:
    with pytest.raises(InputError, match=r"2402\.03300 \(DeepSeekMath"):
        library.get("2402.03301")
    with pytest.raises(InputError, match="not an arXiv id"):
        normalise_id("../../etc/passwd")


# citations


def test_citations_in_both_directions(library: Library) -> None:
    assert "2402.03300" in {hit.arxiv_id for hit in library.citations("2501.12948", "references")}
    assert "2501.12948" in {hit.arxiv_id for hit in library.citations("2402.03300", "cited_by")}


def test_an_unknown_direction_is_an_error(library: Library) -> None:
    with pytest.raises(InputError, match="references or cited_by"):
        library.citations("2501.12948", "upwards")  # type: ignore[arg-type]


# files of the user


def test_own_papers_are_added_to_the_shipped_ones(tmp_path: Path, library: Library) -> None:
    entry = ENTRY + '  cites: ["2402.03300"]\n'
    both = Library.load([SHIPPED, write(tmp_path, entry)])
    assert len(both) == len(library) + 1
    assert "2401.00001" in {hit.arxiv_id for hit in both.citations("2402.03300", "cited_by")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- arxiv_id: [unclosed", "not readable YAML"),
        ("title: not a list", "must hold a list"),
        (ENTRY.replace("[sft]", "[sftt]"), r"entry 1 \(2401.00001\).*sftt.*did you mean sft"),
        (ENTRY.replace("2024", "soon"), r"entry 1 \(2401.00001\).*year"),
        (ENTRY.replace('"2401.00001"', "2401.00001"), "put it in quotes"),
        (ENTRY + "  colour: red\n", "colour"),
        (ENTRY + ENTRY, "there twice"),
        (ENTRY + '  cites: ["2402.99999"]\n', "cites 2402.99999, which is not in the library"),
        (
            ENTRY + "  reported: [{benchmark: MMLU, setting: five-shot, model: x, after: 120}]\n",
            "not between 0 and 100",
        ),
        (ENTRY + "  hyperparameters: {sft: {lr: 1.0}}\n", "TRL field 'lr'"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_entry(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(write(tmp_path, text))
    assert "mine.yaml" in message
    assert re.search(said, message)


def test_a_missing_path_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere.yaml")
    assert "holds no" in refusal(tmp_path)
