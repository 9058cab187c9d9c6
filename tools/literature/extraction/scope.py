"""What a sentence, a heading or a column speaks of: which training method, and whether it is the paper's own final
choice.

Papers state the settings of others, of baselines, of sweeps and of evaluations in the same words as their own. A
sentence
counts as own only when nothing speaks against it: the aim is precision, and a setting that is missed is told as
missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from posttrain_crew.tools.literature.extraction.recipe import METHODS, TrainingMethod
from posttrain_crew.tools.literature.reading.document import Document, Section, Table
from posttrain_crew.tools.literature.reading.plain import plain, sentences

__all__ = [
    "Said",
    "cites_others",
    "is_comparison",
    "is_own_section",
    "methods_in",
    "own_clauses",
    "said",
    "scope_of",
    "speaks_of_all",
    "strongest",
]

_STRONG: dict[TrainingMethod, str] = {
    "sft": r"\bSFT\b|\bsupervised\b(?! baseline)|instruction[- ]tun",
    "dpo": r"\bDPO\b|direct preference|preference[- ](?:tun|optimi[sz])",
    "grpo": r"\bGRPO\b|group[- ]relative|\bDAPO\b",
    "ppo": r"\bPPO\b|proximal policy",
    "rloo": r"\bRLOO\b",
    "kto": r"\bKTO\b",
    "orpo": r"\bORPO\b",
}
_WEAK: dict[TrainingMethod, str] = {
    "sft": r"fine-?tun|\btun(?:e|ed|ing)\b|adapter|\bLoRA\b|cold[- ]start",
    "dpo": r"\bpairs?\b|\bchosen\b|\brejected\b",
    "grpo": r"\breinforc|\brollouts?\b|group size|\bRL\b",
}
_STRONG_RE = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _STRONG.items()}
_WEAK_RE = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _WEAK.items()}

_CITED = re.compile(
    r"\bet al\b|\[\d+(?:\s?[,–-]\s?\d+)*\]|(?<![\w'-])[A-Z][\w'-]{1,40}(?: and [A-Z][\w'-]{1,40})? \(\d{4}[a-z]?\)"
    r"|\([A-Z][^()]{1,80},? \d{4}[a-z]?\)"
)
_FIRST_PERSON = re.compile(r"\b(?:we|our|ours|us)\b", re.IGNORECASE)
_OTHERS = re.compile(r"^(?:They|Their|These authors|Its authors|Others|Prior|Previous|Earlier|In contrast)\b")
_VARIATION = re.compile(
    r"\bablat|\bsweep|\bgrid\b|\bvar(?:y|ied|ying)\b|\btr(?:y|ied)\b|\bsearch(?:ed)? (?:over|for|in|the)"
    r"|\bdoubl(?:e|ing)\b"
    r"|\bhalv|\brais(?:e|ed|ing)\b|\blower(?:ing|ed|s)?\b|\bincreas|\breduc(?:e|ing)|\binstead of\b|\brather than\b"
    r"|\bwithout\b(?! (?:any |an? |the |using )?(?:KL|weight decay|warm-?up|dropout|entropy|packing|early stopping))"
    r"|\bdiverg|\bcollaps|\bunstable\b|\bover-?fit|\b(?:earlier|previous"
    r"|first|initial) (?:version|attempt|run)s?\b|\bnot help|\bpoints?\b|\bworse\b"
    r"|\bbetter\b|\bcosts? (?!\d|about"
    r"|around|roughly|some|us\b)|\bgain(?:s|ed)?\b"
    r"|\bhurts?\b"
    r"|\bstay(?:s|ed)\b|\bfalls?\b|\bfell\b|\bvariants?\b|\bbaselines?\b|\bwould\b|\bif we\b|\bunlike\b"
    r"|\bcompared? (?:\w+ )?(?:against|with|to)\b",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\bsettled? on\b|\bwe (?:finally |then |therefore )?(?:use|used|chose|choose|selected|set|keep|kept|stop|drop)\b"
    r"|\bwe (?:\w+ )?(?:train|fine-?tune)",
    re.IGNORECASE,
)
_MEASURING = re.compile(
    r"\bevaluat|\bgreedy\b|\bdecod|\btest time\b|\bavg@|\bpass@|\bscores? (?:is|are)\b|\bwe report\b"
    r"|\bpass rate|\bdifficulty\b|\bfrom the base model\b|\bestimate\b",
    re.I,
)
_TRIED = re.compile(r"\btried\b|\bdiverg|\bcollaps|\bworse\b|\bunstable\b|\bfail(?:s|ed)\b", re.IGNORECASE)
_REFUSED = re.compile(
    r"\bnot an option\b|\bnot (?:possible|feasible|used|affordable)\b|\b(?:did|do|does|could|can) ?not (?:use"
    r"|afford|need|fit|adopt)"
    r" (?!(?:a |any |the )?(?:KL|reference|critic|penalty|weight decay|entropy))|\bused by \[|\b(?:recommended"
    r"|suggested|reported) (?:by|in)\b",
    re.IGNORECASE,
)
_OTHER_MODEL = re.compile(
    r"(?<!without a )(?<!no )\bcritic(?:'s)?\b(?!-free)|\bvalue (?:model|network|head|function)\b"
    r"|^(?:The|Our|A|This|For the) (?:\w+ )?(?:reward model|teacher|judge|verifier|classifier|retriever|RM)\b"
    r"|\b(?:train|fine-?tun)(?:ed|s|d|e|ing)? (?:a|an|the|our) (?:\w+ )?(?:reward model|verifier|classifier"
    r"|judge|retriever)",
)
_FOREIGN_TITLE = re.compile(
    r"related|prior work|previous|earlier|background|ablat|sensitiv|sweep|did not|what breaks|limitation|published"
    r"|other papers|robustness|literature|^baselines?\b|^references?$|^bibliography|do differently|lessons"
    r"|negative results",
    re.IGNORECASE,
)
_COMPARISON = re.compile(
    r"\bablation|\bsweep|\beffect of\b|\bsensitivity|\bvarying|\bsearch space|\bgrid\b|as stated in|\bpublished\b"
    r"|other papers|prior work|\bsearched\b|\bagainst\b|\btried\b|\binfluence of\b",
    re.IGNORECASE,
)
_ALL = re.compile(
    r"\b(?:both|either|each|all|every)\b[^.;]{0,40}\b(?:stages?|runs?|procedures?|models?|methods?|steps|rounds?)\b",
    re.I,
)


_MOST_CHARACTERS = 1500
_MOST_SENTENCES = 8_000
_MOST_IN_ALL = 1_200_000
"""Characters of all sentences."""


@dataclass(frozen=True)
class Said:
    """A sentence in its place."""

    section: Section
    raw: str
    plain: str
    head: str
    """Run-in head of its paragraph."""
    own: bool
    """It speaks of what this paper did in the end."""
    cited: bool
    """It speaks of others' work."""
    caption: bool = False
    paragraph: str = ""
    """The start of what it stands in."""
    noted: str = ""
    """For a sentence of a footnote: the sentence that it hangs on."""
    moved: bool = False
    """It would be own, if it did not speak of a variation."""


def said(document: Document) -> Iterator[Said]:
    """Every sentence of the paper, captions included, bibliography left out; of a huge text the first 8,000.

    They end earlier where they have 1,200,000 characters in all.
    """
    left = _MOST_IN_ALL
    for one in islice(_said(document), _MOST_SENTENCES):
        left -= len(one.raw)
        if left < 0:
            return
        yield one


def _said(document: Document) -> Iterator[Said]:
    for section in document.sections:
        if section.kind == "bibliography":
            continue
        own_place = is_own_section(document, section)
        for block in section.blocks:
            if isinstance(block, Table):
                yield from _sentences(section, block.caption, "", own_place, True)
            else:
                noted = (sentences(block.noted) or [""])[-1]
                yield from _sentences(section, block.text, block.head, own_place, False, noted)


def _sentences(
    section: Section, text: str, head: str, own_place: bool, caption: bool, noted: str = ""
) -> Iterator[Said]:
    others = False
    for raw in sentences(text):
        # a text without full stops is no prose; its start is enough, and the patterns stay quick
        raw = raw[:_MOST_CHARACTERS]
        flat = plain(raw)
        others = bool(_OTHERS.match(flat)) and (others or bool(_CITED.search(raw)))
        cited = others or cites_others(raw)
        moved = _VARIATION.search(flat) and not _CHOSEN.search(flat)
        own = own_place and not cited and not moved and not _MEASURING.search(flat)
        varied = own_place and not cited and bool(moved)
        yield Said(section, raw, flat, head, own, cited, caption, text[:_MOST_CHARACTERS], noted, varied)
        others = cited


def own_clauses(one: Said) -> list[str]:
    """The parts of a sentence, between semicolons, that speak of what this paper did in the end.

    Of "The rate is 1e-5; we tried 1e-4, but it diverged" that is the first part: what comes behind a variation may
    belong to it.
    """
    clauses = [part for part in re.split(r";\s+", one.plain) if part and not _OTHER_MODEL.search(part)]
    if not clauses:
        return []
    if one.own:
        kept = [part for at, part in enumerate(clauses) if not (at and _TRIED.search(part))]
        return [part for part in kept if not _REFUSED.search(part)]
    first = clauses[0] if one.moved and len(clauses) > 1 else ""
    off = _VARIATION.search(first) or _MEASURING.search(first) or _REFUSED.search(first)
    return [first] if first and not off else []


def cites_others(raw: str) -> bool:
    """Whether a text cites a paper and does not speak of us."""
    return bool(_CITED.search(raw)) and not _FIRST_PERSON.search(raw)


def is_own_section(document: Document, section: Section) -> bool:
    """Whether neither the section nor one around it is on others' work, or on what was varied."""
    around = (section, *document.ancestors(section))
    return not any(_FOREIGN_TITLE.search(one.title) for one in around)


def is_comparison(caption: str) -> bool:
    """Whether a table's caption says that it varies something or reports others' settings."""
    return bool(_COMPARISON.search(caption))


def methods_in(text: str) -> dict[TrainingMethod, int]:
    """Training methods that a text names: 2 by name, 1 by a word that hints at it."""
    found: dict[TrainingMethod, int] = {}
    for method in METHODS:
        if _STRONG_RE[method].search(text):
            found[method] = 2
        elif method in _WEAK_RE and _WEAK_RE[method].search(text):
            found[method] = 1
    return found


def strongest(found: dict[TrainingMethod, int], among: Iterable[TrainingMethod]) -> frozenset[TrainingMethod]:
    """The methods named most clearly, of those that come into question."""
    known = {method: weight for method, weight in found.items() if method in set(among)}
    best = max(known.values(), default=0)
    return frozenset(method for method, weight in known.items() if weight == best)


def speaks_of_all(text: str) -> bool:
    """`both stages`, `each run`: what is said holds for every recipe."""
    return bool(_ALL.search(text))


def scope_of(places: Iterable[str], among: tuple[TrainingMethod, ...]) -> frozenset[TrainingMethod] | None:
    """The method that the narrowest of some nested texts speaks of.

    Returns:
        One method; all of them where a text says so; None where no text tells, or where the narrowest that
        names any names several.
    """
    if len(among) == 1:
        return frozenset(among)
    for text in places:
        if speaks_of_all(text):
            return frozenset(among)
        found = strongest(methods_in(text), among)
        if len(found) == 1:
            return found
        if len(found) > 1:
            return None
    return None
