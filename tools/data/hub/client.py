"""Datasets on the Hugging Face Hub: search, description, card, files. Every outage is an error, never "no datasets".

The client speaks the Hub's HTTP API itself (shapes: huggingface_hub 1.33, `HfApi.list_datasets`, `dataset_info`), so
that pace, retries, cache and typed failures are those of all services.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from posttrain_crew.errors import AccessDeniedError, BadAnswerError, InputError, NotFoundError
from posttrain_crew.tools.literature.paper import normalise_id
from posttrain_crew.tools.services.http import Service

__all__ = ["SORTS", "DatasetInfo", "HubDatasets", "HubFile", "checked_id"]

SORTS = ("downloads", "likes", "lastModified", "createdAt", "trendingScore")
SEARCH_AGE_S = 6 * 3600.0
"""A search this old is good enough: the Hub's index moves by the day."""
MAX_QUERY_CHARS = 200
MAX_RESULTS = 500
MAX_PAGES = 50
MAX_FILES = 20_000
"""More siblings than this are not listed: a dataset of so many files is not one that crew can bring here."""
MAX_CARD_BYTES = 2**20
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


@dataclass(frozen=True)
class HubFile:
    """One file of a repository."""

    path: str
    """As the repository names it: not to be used as a local path."""
    size: int | None
    sha256: str | None
    """The Hub states it for large files (LFS, Xet)."""


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as the Hub describes it. Texts are bounded, and they are data: never instructions."""

    id: str
    revision: str | None
    """Commit of the described state."""
    gated: str | None
    """`auto` or `manual` where terms must be accepted on its page; None where they need not."""
    private: bool
    disabled: bool
    downloads: int
    """Over the last 30 days."""
    likes: int
    tags: tuple[str, ...]
    description: str
    last_modified: str | None
    card: Mapping[str, Any]
    """Front matter of its card; empty in search results."""
    files: tuple[HubFile, ...] = ()
    """Empty in search results."""
    unlisted_files: int = 0
    """Files beyond the most that are listed."""

    def tagged(self, name: str) -> tuple[str, ...]:
        """Values of tags such as `license:mit`."""
        return tuple(tag[len(name) + 1 :] for tag in self.tags if tag.startswith(f"{name}:"))

    @property
    def licence(self) -> str | None:
        """As the card or a tag states it; None where nothing is stated, or only that it is unknown."""
        stated = self.card.get("license")
        names = [str(name) for name in (stated if isinstance(stated, list) else [stated] if stated else [])]
        name = _plain(", ".join(names or self.tagged("license")))[:100]
        return name if name and name.lower() != "unknown" else None

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where the Hub did not say."""
        known = [file.size for file in self.files]
        return sum(size for size in known if size is not None) if known and None not in known else None


class HubDatasets:
    """The Hub's datasets.

    Args:
        service: `Services.hub`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def page(self, dataset: str) -> str:
        """Address of a dataset's page, where people read its card and accept its terms."""
        return f"{self._service.base_url}/datasets/{dataset}"

    def search(
        self,
        text: str = "",
        *,
        task_categories: Sequence[str] = (),
        language: Sequence[str] = (),
        size_categories: Sequence[str] = (),
        tags: Sequence[str] = (),
        papers: Sequence[str] = (),
        author: str | None = None,
        gated: bool | None = None,
        sort: str = "downloads",
        limit: int = 20,
    ) -> list[DatasetInfo]:
        """Datasets that meet all that is given, best first by `sort`. An empty list means that the Hub has none.

        Args:
            text: words that the name or description must have.
            size_categories: as the Hub writes them: `1K<n<10K`.
            papers: arXiv ids; datasets whose cards link them.
            gated: only gated ones, or only others.

        Raises:
            InputError: an argument the Hub does not know. ServiceError: as `Service.get`.
        """
        if sort not in SORTS:
            raise InputError(f"datasets are sorted by one of {', '.join(SORTS)}; {sort[:50]!r} was given.")
        if not 1 <= limit <= MAX_RESULTS:
            raise InputError(f"limit is {limit}; it must be 1 to {MAX_RESULTS}.")
        wanted = [
            *(f"task_categories:{value}" for value in task_categories),
            *(f"language:{value}" for value in language),
            *(f"size_categories:{value}" for value in size_categories),
            *tags,
            *(f"arxiv:{normalise_id(value)}" for value in papers),
        ]
        params = {
            "search": " ".join(text.split())[:MAX_QUERY_CHARS] or None,
            "filter": wanted or None,
            "author": author,
            "gated": gated,
            "sort": sort,
            "limit": min(limit, 100),
        }
        found: dict[str, DatasetInfo] = {}
        place = "api/datasets"
        for _ in range(MAX_PAGES):
            # the address of the next page has the parameters in it
            raw, link = self._get(place, params if place == "api/datasets" else None)
            if raw == [] and not _NEXT.search(link) and not found:
                raw, link = self._get(place, params, fresh=True)  # search indexes give an empty page now and then
            if not isinstance(raw, list):
                raise self._bad(place, "a list of datasets")
            for item in raw:
                info = self._info(item, place)
                found.setdefault(info.id, info)
            following = _NEXT.search(link)
            if following is None or len(found) >= limit:
                break
            place = following[1]
        return list(found.values())[:limit]

    def linked(self, paper: str, limit: int = 20) -> list[DatasetInfo]:
        """Datasets whose cards link an arXiv paper. Raises InputError for what is no arXiv id; as `search`."""
        return self.search(papers=[paper], limit=limit)

    def paper_links(self, paper: str) -> tuple[str, ...]:
        """Ids that the Hub's page of a paper links as its datasets, also those that are gone since.

        Raises:
            InputError: no arXiv id. NotFoundError: the Hub has no page for the paper. ServiceError: as `Service.get`.
        """
        path = f"api/papers/{normalise_id(paper)}"
        raw, _ = self._get(path, None)
        if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
            raise self._bad(path, "`id`, the paper's")
        linked = raw.get("linkedDatasets") or []
        if not isinstance(linked, list) or not all(isinstance(each, dict) and "id" in each for each in linked):
            raise self._bad(path, "`id` of a linked dataset")
        return tuple(dict.fromkeys(_plain(str(each["id"]))[:200] for each in linked[:100]))

    def info(self, dataset: str, revision: str | None = None) -> DatasetInfo:
        """One dataset with its card's front matter and its files.

        Raises:
            InputError: the name is none that the Hub allows.
            NotFoundError: it is not there, or it is private. AccessDeniedError: gated; the message has the page.
            ServiceError: as `Service.get`.
        """
        path = f"api/datasets/{checked_id(dataset)}"
        if revision is not None:
            path += f"/revision/{quote(revision, safe='')}"
        try:
            raw, _ = self._get(path, {"blobs": True})
        except (AccessDeniedError, NotFoundError) as error:
            raise self._refused(dataset, error) from error
        found = self._info(raw, path)
        if not isinstance(raw.get("siblings"), list):
            raise self._bad(path, "`siblings`, the list of its files")
        return found

    def check_access(self, dataset: str) -> None:
        """Whether the token here may read the files of a gated dataset.

        Raises:
            AccessDeniedError: it may not; the message has the page where terms are accepted. As `info` otherwise.
        """
        try:
            self._service.get(f"api/datasets/{checked_id(dataset)}/auth-check")
        except NotFoundError as error:
            if error.code:
                raise self._refused(dataset, error) from error
            self.card(dataset)  # a mirror that does not offer the check: a file of the dataset shows it, too
        except AccessDeniedError as error:
            raise self._refused(dataset, error) from error

    def card(self, dataset: str, revision: str | None = None) -> str:
        """README.md as it is, front matter included; at most 1 MiB. Raises as `info`; NotFoundError without a card."""
        path = self.file_path(dataset, "README.md", revision)
        try:
            return self._service.get(path, max_age_s=SEARCH_AGE_S if revision else 0, max_bytes=MAX_CARD_BYTES).text()
        except (AccessDeniedError, NotFoundError) as error:
            raise self._refused(dataset, error) from error

    def download(self, dataset: str, file: str, to: Path, *, revision: str, max_bytes: int) -> int:
        """Bring one file of a revision to `to`; returns its size in bytes. Raises as `info`, and OSError."""
        try:
            return self._service.download(self.file_path(dataset, file, revision), to, max_bytes=max_bytes)
        except (AccessDeniedError, NotFoundError) as error:
            raise self._refused(dataset, error) from error

    @staticmethod
    def file_path(dataset: str, file: str, revision: str | None = None) -> str:
        """Where a file of a repository is served."""
        return f"datasets/{checked_id(dataset)}/resolve/{quote(revision or 'main', safe='')}/{quote(file)}"

    def _get(self, path: str, params: Mapping[str, Any] | None, fresh: bool = False) -> tuple[Any, str]:
        """Parsed answer and its Link header. An answer that was cut in the middle is asked for once more."""
        age = SEARCH_AGE_S if (params is None or "search" in params) and not fresh else 0.0
        answer = self._service.get(path, params, max_age_s=age)
        try:
            value = answer.json()
        except BadAnswerError:
            answer = self._service.get(path, params)
            value = answer.json()
        return value, str(answer.headers.get("link", ""))

    def _info(self, raw: Any, path: str) -> DatasetInfo:
        if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
            raise self._bad(path, "`id`, the dataset's name")
        tags, siblings, card = raw.get("tags"), raw.get("siblings"), raw.get("cardData")
        files = [_file(each) for each in siblings] if isinstance(siblings, list) else []
        if None in files:
            raise self._bad(path, "`rfilename` for each of its files")
        gated = raw.get("gated")
        return DatasetInfo(
            id=_plain(raw["id"])[:200],
            revision=raw["sha"][:100] if isinstance(raw.get("sha"), str) else None,
            gated=str(gated if isinstance(gated, str) else "auto")[:20] if gated else None,
            private=bool(raw.get("private")),
            disabled=bool(raw.get("disabled")),
            downloads=_count(raw.get("downloads")),
            likes=_count(raw.get("likes")),
            tags=tuple(_plain(str(tag))[:120] for tag in tags[:300]) if isinstance(tags, list) else (),
            description=_plain(" ".join(str(raw.get("description") or "").split()))[:2000],
            last_modified=str(raw["lastModified"])[:40] if raw.get("lastModified") else None,
            card=card if isinstance(card, dict) else {},
            files=tuple(file for file in files[:MAX_FILES] if file is not None),
            unlisted_files=max(0, len(files) - MAX_FILES),
        )

    def _bad(self, path: str, lacks: str) -> BadAnswerError:
        return BadAnswerError(
            f"{self._service.name} answered {path[:200]} without {lacks}. Has its API changed? Look for a newer crew.",
            service=self._service.name,
        )

    def _refused(self, dataset: str, error: AccessDeniedError | NotFoundError) -> AccessDeniedError | NotFoundError:
        """In the words of datasets. Of what is missing the Hub says 401 to who has no token (hf_raise_for_status)."""
        details = {"service": self._service.name, "status": error.status, "code": error.code}
        if error.code == "EntryNotFound":
            return error
        unknown = error.status == 401 and error.code != "GatedRepo" and "Invalid credentials" not in str(error)
        if unknown or isinstance(error, NotFoundError) or error.code in ("RepoNotFound", "RevisionNotFound"):
            what = "revision asked for of the dataset" if error.code == "RevisionNotFound" else "dataset"
            return NotFoundError(
                f"the {what} {dataset} is not on the Hub ({self.page(dataset)}): it was removed or renamed, is "
                "private, or never was there.",
                **details,  # type: ignore[arg-type]
            )
        return AccessDeniedError(
            f"the dataset {dataset} is gated: accept its terms at {self.page(dataset)} with the account of your token, "
            f"then set HF_TOKEN or run `hf auth login`. ({str(error)[:200]})",
            **details,  # type: ignore[arg-type]
        )


def checked_id(dataset: str) -> str:
    """The name, where the Hub allows it: `owner/name` (letters, digits, `-_.`). Raises InputError."""
    from huggingface_hub.errors import HFValidationError  # slow to import
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(dataset)
    except HFValidationError as error:
        raise InputError(
            f"{dataset[:120]!r} is no dataset name of the Hub: write `owner/name`. ({str(error)[:200]})"
        ) from error
    return dataset


def _file(raw: Any) -> HubFile | None:
    if not isinstance(raw, dict) or not isinstance(raw.get("rfilename"), str):
        return None
    lfs, size = raw.get("lfs"), raw.get("size")
    digest = (lfs.get("sha256") or lfs.get("oid")) if isinstance(lfs, dict) else None
    size = size if size is not None or not isinstance(lfs, dict) else lfs.get("size")
    return HubFile(
        raw["rfilename"][:1000],
        size if isinstance(size, int) and size >= 0 else None,
        str(digest).removeprefix("sha256:") if digest else None,
    )


def _plain(text: str) -> str:
    """Without characters that would steer a terminal."""
    return "".join(character for character in text[:20_000] if character.isprintable())


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
