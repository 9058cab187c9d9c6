"""The unmodified clients of the real services take the loopback world for the real one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import arxiv
import pytest
from huggingface_hub import DatasetCard, DatasetInfo, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from pypdf import PdfReader
from semanticscholar import SemanticScholar
from semanticscholar.SemanticScholarException import BadQueryParametersException, ObjectNotFoundException

from tests.loopback.world import Loopback

GOOD, LEAKING = "lab-notebook/quanta-steps", "quizdump/science-mcq-worked"


@pytest.fixture
def hub(world: Loopback, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return HfApi(endpoint=world.url, token="hf_loopback")


@pytest.fixture
def scholar(world: Loopback) -> SemanticScholar:
    return SemanticScholar(api_url=f"{world.url}/s2", retry=False, timeout=10)


@pytest.fixture
def arxiv_client(world: Loopback) -> arxiv.Client:
    client = arxiv.Client(page_size=2, delay_seconds=0, num_retries=0)
    client.query_url_format = f"{world.url}/arxiv/api/query?{{}}"
    return client


@pytest.mark.parametrize(
    "query",
    [
        "worked solutions reasoning small language models",
        "worked solutions reasoning steps",
        "small language models reasoning",
        "answer format multiple choice",
        "worked solutions",
    ],
)
def test_search_finds_the_paper_but_not_its_data(scholar: SemanticScholar, hub: HfApi, query: str) -> None:
    found = [paper.externalIds.get("ArXiv") for paper in scholar.search_paper(query, fields=["externalIds"])]
    assert "2609.90001" in found
    assert "2609.90007" not in found
    assert "2609.90007" not in [paper.id for paper in hub.list_papers(query=query)]


def test_the_citation_leads_to_the_data(scholar: SemanticScholar, hub: HfApi) -> None:
    links = scholar.get_paper_references(
        "ARXIV:2609.90001", fields=["externalIds", "contexts", "intents", "contextsWithIntent", "isInfluential"]
    )
    data = next(link for link in links if link.paper.externalIds["ArXiv"] == "2609.90007")
    assert data.isInfluential
    assert data.intents == ["methodology"]
    assert "train on the released exercises" in data.contexts[0]
    paper = hub.paper_info("2609.90007")
    assert [linked.id for linked in paper.linked_datasets or []] == [GOOD]
    assert [dataset.id for dataset in hub.list_datasets(filter="arxiv:2609.90007")] == [GOOD]


def test_semantic_scholar_ids_batch_and_404(scholar: SemanticScholar) -> None:
    paper = scholar.get_paper("ARXIV:2609.90007v2", fields=["externalIds", "title", "tldr", "citationCount"])
    names = [f"DOI:{paper.externalIds['DOI']}", f"CorpusId:{paper.externalIds['CorpusId']}", paper.paperId]
    names.append("URL:https://arxiv.org/abs/2609.90007")
    assert {scholar.get_paper(name, fields=["title"]).title for name in names} == {paper.title}
    assert paper.citationCount == 2
    wanted = ["ARXIV:2609.90001", "ARXIV:1234.56789"]
    batch, missing = scholar.get_papers(wanted, fields=["externalIds"], return_not_found=True)
    assert [len(batch), missing] == [1, ["ARXIV:1234.56789"]]
    with pytest.raises(ObjectNotFoundException):
        scholar.get_paper("ARXIV:1234.56789", fields=["title"])
    with pytest.raises(BadQueryParametersException):
        scholar.get_paper("ARXIV:2609.90001", fields=["tittle"])


def test_semantic_scholar_pages_to_the_end(world: Loopback, scholar: SemanticScholar) -> None:
    pages = scholar.search_paper("models", fields=["title"], limit=3)
    assert pages.total > 3
    assert len({paper.paperId for paper in pages}) == pages.total
    bulk = scholar.search_paper("models", bulk=True, fields=["title", "citationCount"], sort="citationCount:desc")
    counts = [paper.citationCount for paper in bulk]
    assert len(counts) == pages.total
    assert counts == sorted(counts, reverse=True)
    cited = scholar.get_paper_citations("ARXIV:2609.90002", fields=["title"], limit=2)
    assert len(list(cited)) == scholar.get_paper("ARXIV:2609.90002", fields=["citationCount"]).citationCount
    assert not world.unknown_parameters


def test_semantic_scholar_filters_match_snippets_and_recommendations(scholar: SemanticScholar) -> None:
    older = scholar.search_paper("worked solutions", fields=["year"], year="-2025")
    assert [paper.year for paper in older] == [2025]
    assert not scholar.search_paper("worked solutions", fields=["year"], publication_date_or_year="2027:").items
    assert not scholar.search_paper("worked solutions", fields=["title"], min_citation_count=1000).items
    matched = scholar.search_paper("Judges That Disagree with Themselves", match_title=True, fields=["externalIds"])
    assert matched.externalIds["ArXiv"] == "2609.90015"
    snippet = scholar.search_snippet("learning rate batch size", paper_ids=["ARXIV:2609.90014"])[0]
    assert "learning rate 1e-5 and batch size 64" in snippet.text
    recommended = {paper.paperId for paper in scholar.get_recommended_papers("ARXIV:2609.90001", fields=["title"])}
    cited = {link.paper.paperId for link in scholar.get_paper_references("ARXIV:2609.90001", fields=["title"])}
    assert recommended
    assert not recommended & cited


def test_an_injected_parameter_is_seen(world: Loopback, scholar: SemanticScholar) -> None:
    scholar.search_paper("solutions&minCitationCount=3&evil=1", fields=["title"])
    assert ("evil", "1") in world.requests[-1].parameters
    assert [name for _, name in world.unknown_parameters] == ["evil"]
    assert world.requests[-1][:2] == ("GET", "/s2/graph/v1/paper/search")


def test_arxiv_queries(arxiv_client: arxiv.Client) -> None:
    search = arxiv.Search(
        'ti:"worked solutions" OR (abs:reward AND cat:cs.CL)', sort_by=arxiv.SortCriterion.SubmittedDate
    )
    found = list(arxiv_client.results(search))
    assert "2609.90001v1" in [paper.get_short_id() for paper in found]
    assert len(found) > 2  # so that there was a second page
    assert [paper.published for paper in found] == sorted((paper.published for paper in found), reverse=True)
    first = next(iter(arxiv_client.results(arxiv.Search(id_list=["2609.90007v1"]))))
    assert (first.title, first.primary_category) == ("A Corpus of Unit-Checked Quantities", "cs.CL")
    assert first.authors[0].name == "Greta Lindholm"
    assert str(first.pdf_url).endswith("/pdf/2609.90007v1")
    assert not list(arxiv_client.results(arxiv.Search("all:zeppelin")))
    assert not list(arxiv_client.results(arxiv.Search("ti:solutions ANDNOT ti:worked")))
    with pytest.raises(arxiv.HTTPError):
        list(arxiv_client.results(arxiv.Search("(ti:worked")))


def test_lists_of_datasets(hub: HfApi) -> None:
    science = [dataset.id for dataset in hub.list_datasets(search="science", sort="downloads")]
    assert science[0] == LEAKING
    assert GOOD not in science
    tagged = list(hub.list_datasets(filter=["task_categories:question-answering", "size_categories:1K<n<10K"]))
    assert {LEAKING, "stemdialogs/tutor-turns"} <= {dataset.id for dataset in tagged}
    assert GOOD not in {dataset.id for dataset in tagged}
    everything = list(hub.list_datasets(full=True))
    assert len({dataset.id for dataset in everything}) == len(everything) > 10  # more than a page
    assert all(dataset.siblings and dataset.card_data for dataset in everything)
    assert [dataset.id for dataset in hub.list_datasets(gated=True)] == ["walled/physics-olympiad"]
    assert {dataset.author for dataset in hub.list_datasets(author="openbooks")} == {"openbooks"}
    assert len(list(hub.list_datasets(limit=3))) == 3
    expanded = next(iter(hub.list_datasets(search="quizdump", expand=["downloadsAllTime", "cardData"])))
    assert (expanded.downloads_all_time or 0) > 0
    assert expanded.downloads is None


def info_size(info: DatasetInfo, path: str) -> int | None:
    return next(sibling.size for sibling in info.siblings or [] if sibling.rfilename == path)


def test_a_dataset_and_its_files(hub: HfApi, world: Loopback, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    info = hub.dataset_info(GOOD, files_metadata=True)
    assert info.card_data is not None
    assert info.card_data.license == "cc-by-4.0"
    assert "arxiv:2609.90007" in (info.tags or [])
    entries = {entry.path: entry for entry in hub.list_repo_tree(GOOD, repo_type="dataset", recursive=True)}
    assert set(entries) == {".gitattributes", "README.md", "data", "data/train.parquet"}
    place = hf_hub_download(
        GOOD, "data/train.parquet", repo_type="dataset", endpoint=world.url, cache_dir=tmp_path, token="hf_loopback"
    )
    table = pq.read_table(place)
    assert (table.num_rows, table.column_names) == (1800, ["question", "choices", "answer", "solution"])
    assert Path(place).stat().st_size == info_size(info, "data/train.parquet")
    assert hub.get_paths_info(GOOD, ["README.md"], repo_type="dataset")[0].path == "README.md"
    readme = hf_hub_download(GOOD, "README.md", repo_type="dataset", endpoint=world.url, cache_dir=tmp_path)
    card = DatasetCard(Path(readme).read_text())
    assert card.data.to_dict()["size_categories"] == ["1K<n<10K"]
    assert "2609.90007" in card.text
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(
            GOOD, "data/none", repo_type="dataset", endpoint=world.url, cache_dir=tmp_path, token="hf_loopback"
        )
    with pytest.raises(RevisionNotFoundError):
        hub.dataset_info(GOOD, revision="v9")


def test_gated_and_missing_datasets(hub: HfApi, world: Loopback, tmp_path: Path) -> None:
    gated = "walled/physics-olympiad"
    assert hub.dataset_info(gated).gated == "manual"

    def download(token: str | bool) -> str:
        return hf_hub_download(
            gated, "data/train.parquet", repo_type="dataset", endpoint=world.url, cache_dir=tmp_path, token=token
        )

    for token in (False, "hf_loopback"):
        with pytest.raises(GatedRepoError):
            download(token)
    assert Path(download("hf_granted")).stat().st_size > 1000
    with pytest.raises(RepositoryNotFoundError):
        hub.dataset_info("gone-lab/lost-set")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=world.url).dataset_info("gone-lab/lost-set", token=False)
    assert "gone-lab/lost-set" in [linked.id for linked in hub.paper_info("2609.90014").linked_datasets or []]
    assert hub.whoami()["name"] == "loopback"


def test_hub_papers(hub: HfApi) -> None:
    found = next(iter(hub.list_papers(query="verifiable answers reward")))
    assert found.id == "2609.90002"
    detail = hub.paper_info(found.id)
    assert (detail.title, detail.num_total_datasets) == (found.title, 0)
    assert [model.id for model in detail.linked_models or []] == ["Qwen/Qwen2.5-1.5B-Instruct"]
    assert hub.model_info("Qwen/Qwen2.5-1.5B-Instruct").pipeline_tag == "text-generation"
    with pytest.raises(RepositoryNotFoundError):
        hub.model_info("Qwen/Qwen-9")
    daily = list(hub.list_daily_papers(limit=5))
    dates = [paper.published_at for paper in daily if paper.published_at]
    assert len(dates) == 5
    assert dates == sorted(dates, reverse=True)
    assert hub.read_paper("2609.90013").startswith("# Program-Checked Answers for Arithmetic Word Problems\n")
    assert hub.read_paper("2609.90018").startswith("<!doctype html>")  # the Hub's own page where arXiv has no text


def test_pdf_has_the_text(world: Loopback) -> None:
    import httpx

    answer = httpx.get(f"{world.url}/arxiv/pdf/2609.90014v1")
    reader = PdfReader(io.BytesIO(answer.content))
    text = " ".join("\n".join(page.extract_text() for page in reader.pages).split())
    assert "learning rate 1e-5 and batch size 64" in text
    assert reader.metadata is not None
    assert reader.metadata.title == "Steps or Answers? What Small Models Copy from Worked Examples"
    long = PdfReader(io.BytesIO(httpx.get(f"{world.url}/arxiv/pdf/2609.90001").content))
    assert len(long.pages) > 1


_LOAD = """
import json, sys
import datasets
from huggingface_hub import DatasetCard
out = {"card": DatasetCard.load(sys.argv[1]).data.license}
stream = datasets.load_dataset(sys.argv[1], split="train", streaming=True)
out["first"] = next(iter(stream))
out["rows"] = datasets.load_dataset(sys.argv[1], split="train").num_rows
try:
    datasets.load_dataset("evil/script-loader", split="train")
except Exception as error:
    out["script"] = type(error).__name__
print(json.dumps(out))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "count"), [(LEAKING, 1800), ("mcq-fast/letters-only", 1500)])
def test_load_dataset(world: Loopback, tmp_path: Path, dataset: str, count: int) -> None:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": world.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, dataset],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded["rows"] == count
    assert set(loaded["first"]) >= {"question", "choices", "answer"}
    assert loaded["card"]
    assert loaded["script"]  # refused, and not run
    assert not list(tmp_path.rglob("EXECUTED-BY-A-DATASET"))
