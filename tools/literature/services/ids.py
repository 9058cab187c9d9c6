"""One normal form for the many spellings of a paper's name, and what makes two names the same paper.

parse_ids("https://arxiv.org/pdf/2402.03300v3.pdf")     PaperIds(arxiv="2402.03300")
parse_ids("10.48550/arXiv.2402.03300")                  PaperIds(arxiv="2402.03300")
parse_ids("https://doi.org/10.18653/V1/N18-3011")       PaperIds(doi="10.18653/v1/n18-3011")
parse_ids("CorpusId:267412607")                         PaperIds(corpus="267412607")
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.paper import normalise_id
from posttrain_crew.tools.literature.services.base import PaperIds, one_line

__all__ = ["clash", "merge_ids", "normal_title", "parse_ids", "s2_name"]

MAX_CHARS = 500
_SCHEME = re.compile(r"^(?:https?://)?(?:www\.)?", re.I)
_ARXIV_PLACE = re.compile(
    r"^(?:(?:[a-z]+\.)?arxiv\.org/(?:abs|pdf|html|format|ps|src|e-print)/"
    r"|ar5iv(?:\.labs\.arxiv)?\.org/(?:abs|html)/"
    r"|(?:alphaxiv\.org/(?:abs|overview)|huggingface\.co/papers|hf\.co/papers)/"
    r"|arxiv:\s*)",
    re.I,
)
_DOI_PLACE = re.compile(r"^(?:(?:dx\.)?doi\.org/|doi:\s*|[\w.-]+/doi/(?:\w+/)?(?=10\.))", re.I)
_DOI = re.compile(r"10\.\d{4,9}/[^\s\"\\]{1,300}")
_ARXIV_DOI = re.compile(r"10\.48550/arxiv\.(?P<id>.+)", re.I)
_CORPUS = re.compile(r"(?:api\.semanticscholar\.org/)?corpus(?:id)?:\s*(?P<id>\d{1,12})", re.I)
_S2 = re.compile(
    r"(?:s2:|(?:[a-z]+\.)?semanticscholar\.org/(?:paper|reader)/(?:[^/]*/)?)?(?P<id>[0-9a-f]{40})(?:/.*)?", re.I
)
_OLD_ARXIV = re.compile(r"(?P<archive>[a-z-]+)(?:\.[A-Z]{2})?/(?P<number>\d{2}(?:0[1-9]|1[0-2])\d{3})")
_NEW_ARXIV = re.compile(r"\d{2}(?:0[1-9]|1[0-2])\.\d{4,5}")


def parse_ids(text: str) -> PaperIds:
    """The name of a paper in its normal form. Raises InputError where it is none.

    Understood are arXiv ids with or without version (also old ones), `arXiv:`, pages of arxiv.org, ar5iv, alphaXiv and
    Hugging Face papers, DOIs with `doi:` or as URL, DOIs of arXiv, `CorpusId:`, Semantic Scholar's ids and pages, and
    the keys of PaperIds.
    """
    if len(text) > MAX_CHARS:
        raise InputError(f"a paper's name has {len(text)} characters ({one_line(text, 60)!r} ...): none is that long.")
    name = _SCHEME.sub("", text.strip())
    is_url = "/" in name and "." in name.partition("/")[0] and not name.startswith("10.")
    if is_url:  # what follows ? and # is no part of the name; in a bare DOI both are
        name = unquote(re.split(r"[?#]", name, maxsplit=1)[0]).rstrip("/")
    if match := _CORPUS.fullmatch(name):
        return PaperIds(corpus=match["id"].lstrip("0") or "0")
    if match := _S2.fullmatch(name):
        return PaperIds(s2=match["id"].lower())
    bare = _DOI_PLACE.sub("", name)
    if match := _DOI.fullmatch(bare):
        if of_arxiv := _ARXIV_DOI.fullmatch(bare):
            return PaperIds(arxiv=_arxiv(of_arxiv["id"], text))
        if {".", ".."} & set(bare.split("/")):
            raise _no_name(text)  # it would be another path in a URL
        return PaperIds(doi=bare.lower().rstrip(".,;"))
    return PaperIds(arxiv=_arxiv(re.sub(r"\.(?:pdf|md)$", "", _ARXIV_PLACE.sub("", name)), text))


def _arxiv(bare: str, text: str) -> str:
    try:
        name = normalise_id(bare)
    except InputError as error:
        raise _no_name(text) from error
    if old := _OLD_ARXIV.fullmatch(name):
        return f"{old['archive']}/{old['number']}"  # math.GT/0309136 is math/0309136
    if not _NEW_ARXIV.fullmatch(name):
        raise _no_name(text)
    return name


def _no_name(text: str) -> InputError:
    return InputError(
        f"{one_line(text, 100)!r} is not the name of a paper. Write an arXiv id (2402.03300), a DOI (10.18653/v1/...), "
        "CorpusId:NUMBER, or the address of its page at arXiv, Hugging Face or Semantic Scholar."
    )


def merge_ids(first: PaperIds, second: PaperIds) -> PaperIds:
    """All names that either has; those of `first` where they differ."""
    return PaperIds(
        arxiv=first.arxiv or second.arxiv,
        doi=first.doi or second.doi,
        corpus=first.corpus or second.corpus,
        s2=first.s2 or second.s2,
    )


def clash(first: PaperIds, second: PaperIds) -> bool:
    """Whether the names say that these are two papers: a kind of name that both have differs, and none is shared."""
    if set(first.names) & set(second.names):
        return False
    pairs = ((first.arxiv, second.arxiv), (first.doi, second.doi), (first.corpus, second.corpus), (first.s2, second.s2))
    return any(one and other and one != other for one, other in pairs)


def normal_title(title: str) -> str:
    """Letters and digits of a title in lower case, without accents: equal for the same title in two spellings.

    Empty for a title of less than 12 of them ("Introduction"), which says nothing.
    """
    plain = unicodedata.normalize("NFKD", title).casefold()
    letters = "".join(character for character in plain if character.isalnum())
    return letters if len(letters) >= 12 else ""


def s2_name(ids: PaperIds) -> str | None:
    """The name under which Semantic Scholar is asked for a paper; None where it has none."""
    if ids.arxiv:
        return f"ARXIV:{ids.arxiv}"
    if ids.doi:
        return f"DOI:{ids.doi}"
    if ids.corpus:
        return f"CorpusId:{ids.corpus}"
    return ids.s2
