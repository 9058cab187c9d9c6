"""Which datasets of the Hub are worth a look for a task: found by words, papers and recipes, ranked, with reasons.

What cannot be used (gated, missing, without data, too large, denied) is reported by name and never replaced in silence,
and a service that did not answer is a failure in the result, not a shorter list. Nothing is brought here: an audit of
what was brought decides, this only says where to look first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from posttrain_crew.errors import AccessDeniedError, InputError, NotFoundError, ServiceError
from posttrain_crew.tools.data.hub.client import DatasetInfo, HubDatasets
from posttrain_crew.tools.data.hub.files import choose
from posttrain_crew.tools.data.reader import denied_name

__all__ = ["Candidate", "Discovery", "Failure", "Needs", "Problem", "discover"]

MAX_WORDS = 6
"""Words of a query that are also looked for one by one: the Hub's search wants all words of a query in one name."""
PER_QUESTION = 30
"""Datasets taken from one search."""
MAX_PAPERS = 20
MAX_NAMED = 40
MAX_LOOKED_AT = 40
"""Datasets that words alone found and whose files are looked at, best first."""
USEFUL_SIZES = frozenset({"1K<n<10K", "10K<n<100K", "100K<n<1M"})
_WORD = re.compile(r"[^\W_]{3,}|[^\x00-\x7f\W_]{2}")
_COMMON = frozenset({
    "and", "are", "data", "dataset", "datasets", "for", "from", "model", "models", "question", "questions", "set",
    "sets", "that", "the", "their", "this", "train", "training", "which", "with",
})  # fmt: skip
_T = TypeVar("_T")

Kind = Literal["gated", "missing", "no data files", "licence unknown", "too large", "denied", "not a dataset name"]


@dataclass(frozen=True)
class Needs:
    """What is looked for."""

    query: str = ""
    task: str | None = None
    """A task category of the Hub, for example `question-answering`."""
    papers: tuple[str, ...] = ()
    """arXiv ids, best first."""
    named: tuple[tuple[str, str], ...] = ()
    """(dataset, who names it), for example ("owner/name", "recipe rec-2"). A title without an owner is searched for."""
    size: str | None = None
    """A size category of the Hub, for example `1K<n<10K`."""
    licence: str | None = None
    limit: int = 20
    deny: tuple[str, ...] = ()
    """Names or globs that must never be trained on."""
    max_bytes: int = 2 * 2**30


@dataclass(frozen=True)
class Candidate:
    """A dataset that can be brought here."""

    dataset: str
    score: float
    """For the order alone; the reasons say what it is made of."""
    reasons: tuple[str, ...]
    licence: str | None
    size: str | None
    """Rows, as the Hub's size category says."""
    bytes: int | None
    """Of the training data."""
    downloads: int
    revision: str | None
    description: str
    """What its publisher says: data, never an instruction."""


@dataclass(frozen=True)
class Problem:
    """A dataset that was found or named and cannot be used as it is."""

    dataset: str
    kind: Kind
    what: str
    blocking: bool = True
    """False: it is among the candidates all the same."""


@dataclass(frozen=True)
class Failure:
    """A question that a service did not answer, so that the result may lack what it would have said."""

    service: str
    asked: str
    error: str
    """Class of the ServiceError."""
    message: str


@dataclass
class Discovery:
    """What was found."""

    candidates: list[Candidate] = field(default_factory=list)
    """Best first."""
    problems: list[Problem] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    questions: int = 0
    """Questions that were put to the Hub; with as many failures nothing is known at all."""


def discover(hub: HubDatasets, needs: Needs) -> Discovery:
    """Find and rank.

    Raises:
        InputError: nothing is looked for, or a paper is no arXiv id.
        ServiceError: no question was answered; the first error.
    """
    if not (needs.query.strip() or needs.task or needs.papers or needs.named or needs.size):
        raise InputError("say what is looked for: words, a task, papers, or datasets by name.")
    if not 1 <= needs.limit <= 100:
        raise InputError(f"limit is {needs.limit}; it must be 1 to 100.")
    search = _Search(hub, needs)
    if not (search.words or needs.task or needs.papers or needs.named or needs.size):
        raise InputError(
            f"no word of {needs.query.strip()[:100]!r} tells one dataset from another: give words of three letters or "
            "more, a task or a paper."
        )
    search.by_name()
    search.by_papers()
    search.by_words()
    search.check_answered()
    found = search.ranked()
    search.check_answered()
    return found


@dataclass
class _Seen:
    """A dataset, and why it was looked at."""

    info: DatasetInfo | None = None
    papers: list[str] = field(default_factory=list)
    named_by: list[str] = field(default_factory=list)
    resembles: list[str] = field(default_factory=list)
    """Names without an owner that papers and recipes gave, and whose words its own name has."""


class _Search:
    def __init__(self, hub: HubDatasets, needs: Needs) -> None:
        self._hub, self._needs = hub, needs
        self.words = [word for word in dict.fromkeys(_WORD.findall(needs.query.lower())) if word not in _COMMON]
        self._seen: dict[str, _Seen] = {}
        self.found = Discovery()
        self.errors: list[ServiceError] = []

    def check_answered(self) -> None:
        """Raises the first error when no question was answered: then nothing is known, which is not "nothing"."""
        if self.errors and len(self.errors) >= self.found.questions:
            raise self.errors[0]

    def by_name(self) -> None:
        """Datasets that recipes name. Where they give a title, those with its words in the name are looked at."""
        for name, who in list(dict.fromkeys(self._needs.named))[:MAX_NAMED]:
            if "/" in name:
                self._at(name).named_by.append(who)
                continue
            words = " ".join(word for word in _WORD.findall(name.lower()) if word not in _COMMON)
            hits = (
                self._asked(f"datasets named {name[:80]!r}", partial(self._hub.search, words, limit=5)) if words else []
            )
            if hits is not None:
                what = f"no name of the Hub (`owner/name`), which {who} gives; {len(hits)} datasets have its words"
                self._problem(name, "not a dataset name", what, "", blocking=False)
            for info in hits or []:
                self._at(info.id, info).resembles.append(f"{name[:80]}, which {who} names")

    def by_papers(self) -> None:
        """Datasets that link a paper, and those that the Hub's page of a paper links."""
        for paper in list(dict.fromkeys(self._needs.papers))[:MAX_PAPERS]:
            linked = self._asked(f"datasets that link arXiv {paper}", partial(self._hub.linked, paper, PER_QUESTION))
            for info in linked or []:
                self._at(info.id, info).papers.append(paper)
            nothing: tuple[str, ...] = ()
            page = self._asked(f"the page of arXiv {paper}", partial(self._hub.paper_links, paper), absent=nothing)
            for name in page or ():
                if paper not in self._at(name).papers:
                    self._at(name).papers.append(paper)

    def by_words(self) -> None:
        """Datasets whose names have the words, all of them and one by one, and those of the task."""
        needs = self._needs
        if not (self.words or needs.task or needs.size):
            return
        search = partial(
            self._hub.search,
            task_categories=[needs.task] if needs.task else [],
            size_categories=[needs.size] if needs.size else [],
            tags=[f"license:{needs.licence}"] if needs.licence else [],
            limit=PER_QUESTION,
        )
        texts = [" ".join(self.words), *self.words[:MAX_WORDS]] if self.words else [""]
        for text in dict.fromkeys(texts):
            asked = f"datasets with {text!r} in the name" if text else "datasets of the task or size"
            hits = self._asked(asked, partial(search, text))
            for info in hits or []:
                self._at(info.id, info)

    def ranked(self) -> Discovery:
        """Look at the best of what was seen, and put it in order."""
        order = sorted(self._seen, key=lambda name: (-self._score(name, self._seen[name])[0], name))
        looked = 0
        for name in order:
            seen = self._seen[name]
            wanted = bool(seen.named_by or seen.papers)  # someone relies on these: each is reported
            if not wanted and (len(self.found.candidates) >= self._needs.limit or looked >= MAX_LOOKED_AT):
                continue
            looked += not wanted
            self._look(name, seen)
        self.found.candidates.sort(key=lambda each: (-each.score, each.dataset))
        del self.found.candidates[self._needs.limit :]
        return self.found

    def _look(self, name: str, seen: _Seen) -> None:
        """Ask for its files; it becomes a candidate, a problem, or a failure."""
        why = "; ".join(self._why(seen))
        if pattern := denied_name([name], self._needs.deny):
            return self._problem(name, "denied", f"on the target's deny list ({pattern}): never to be trained on", why)
        try:
            info = self._asked(f"the files of {name}", partial(self._hub.info, name), refusals=True)
            if info is None:
                return None
            if info.gated:
                self._asked(f"access to {name}", partial(self._hub.check_access, name), refusals=True)
        except NotFoundError as error:
            return self._problem(name, "missing", str(error), why)
        except AccessDeniedError as error:
            return self._problem(name, "gated", str(error), why)
        except InputError as error:
            return self._problem(name, "not a dataset name", str(error), why)
        seen.info = info
        sources = info.card.get("source_datasets")
        parents = [str(each) for each in sources[:50]] if isinstance(sources, list) else []
        if pattern := denied_name([info.id, *parents], self._needs.deny):
            what = f"made from or named as what is on the target's deny list ({pattern}): never to be trained on"
            return self._problem(name, "denied", what, why)
        return self._judge(name, seen, info, why)

    def _judge(self, name: str, seen: _Seen, info: DatasetInfo, why: str) -> None:
        choice = choose(info.files, info.card)
        sizes = [file.size for file in choice.files]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) and sizes else None
        if not choice.files and choice.scripts:
            what = f"it has no data file that crew reads, only code ({choice.scripts[0][:80]}), which is never run"
            return self._problem(name, "no data files", what, why)
        if not choice.files:
            what = "it has no data file that crew reads; the viewer's parquet copy, if it has one, is brought instead"
            self._problem(name, "no data files", what, why, blocking=False)
        elif min(known, default=0) > self._needs.max_bytes:
            bound = _size(self._needs.max_bytes)
            what = f"its data files have {_size(min(known))} or more each, over the bound of {bound}"
            return self._problem(name, "too large", what, why)
        elif total is not None and total > self._needs.max_bytes:
            what = f"{_size(total)} of training data: only the first {_size(self._needs.max_bytes)} are brought"
            self._problem(name, "too large", what, why, blocking=False)
        if info.licence is None:
            self._problem(name, "licence unknown", "neither its card nor a tag states a licence", why, blocking=False)
        score, reasons = self._score(name, seen)
        self.found.candidates.append(
            Candidate(
                dataset=info.id,
                score=round(score, 3),
                reasons=tuple(reasons),
                licence=info.licence,
                size=next(iter(info.tagged("size_categories")), None),
                bytes=total,
                downloads=info.downloads,
                revision=info.revision,
                description=info.description[:300],
            )
        )
        return None

    def _score(self, name: str, seen: _Seen) -> tuple[float, list[str]]:
        """Evidence before looks: a recipe or paper counts for more than all words, words for more than downloads."""
        reasons, info = self._why(seen), seen.info
        score = (4.0 if seen.named_by else 0.0) + (1.5 * (1 + min(2, len(seen.papers))) if seen.papers else 0.0)
        score += 1.0 if seen.resembles else 0.0
        if info is None:
            return score, reasons
        text = " ".join([name, *info.tags, info.description]).lower()
        if matched := [word for word in self.words if word in text]:
            score += 2.0 * len(matched) / len(self.words)
            reasons.append(f"matches {', '.join(matched)}")
        if self._needs.task and self._needs.task in info.tagged("task_categories"):
            score += 1.0
            reasons.append(f"is for {self._needs.task}")
        if size := next(iter(info.tagged("size_categories")), None):
            score += 0.5 * (size in USEFUL_SIZES)
            reasons.append(f"has {size} rows")
        score += 0.5 if info.licence else 0.0
        reasons.append(f"licence {info.licence}" if info.licence else "licence not stated")
        if info.gated:
            score -= 1.0
            reasons.append("gated")
        score += min(1.0, math.log10(1 + info.downloads) / 6)
        reasons.append(f"{info.downloads:,} downloads in 30 days")
        return score, reasons

    def _why(self, seen: _Seen) -> list[str]:
        reasons = [f"named by {who}" for who in dict.fromkeys(seen.named_by)]
        reasons += [f"has the words of {what}" for what in dict.fromkeys(seen.resembles)]
        return reasons + [f"linked to arXiv {paper}" for paper in dict.fromkeys(seen.papers)]

    def _at(self, name: str, info: DatasetInfo | None = None) -> _Seen:
        seen = self._seen.setdefault(name, _Seen())
        seen.info = seen.info or info
        return seen

    def _asked(
        self, what: str, question: Callable[[], _T], *, absent: _T | None = None, refusals: bool = False
    ) -> _T | None:
        """The answer. None where the service failed, which is noted; `absent` where it has no such thing.

        Args:
            refusals: NotFoundError and AccessDeniedError are answers, for the caller.
        """
        self.found.questions += 1
        try:
            return question()
        except ServiceError as error:
            if isinstance(error, NotFoundError | AccessDeniedError) and refusals:
                raise
            if isinstance(error, NotFoundError) and absent is not None:
                return absent
            self.errors.append(error)
            self.found.failures.append(
                Failure(error.service or "huggingface", what, type(error).__name__, str(error)[:500])
            )
            return None

    def _problem(self, name: str, kind: Kind, what: str, why: str, blocking: bool = True) -> None:
        text = f"{what[:400]} ({why})" if why else what[:400]
        self.found.problems.append(Problem(name[:200], kind, text, blocking))


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
