"""Datasets that a paper names as its own data: by their Hub ids, in running text, links and footnotes, and by names
that nothing but a dataset has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from posttrain_crew.tools.literature.extraction.mentions import cited_reference, hub_ids, is_model
from posttrain_crew.tools.literature.extraction.recipe import DatasetNamed, Evidence, TrainingMethod
from posttrain_crew.tools.literature.extraction.scope import Said, said
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["datasets_said", "kind_of_data", "named_datasets"]

_DATA = re.compile(
    r"\bdata\b|dataset|question|prompt|problem|\bpairs?\b|\bitems?\b|exercise|corpus|solution|train|fine-?tun|publish"
    r"|releas|conversation"
    r"|instruction|examples|mixture|collection|available|\bshared\b|dialogue|trajector|traces|preference"
    r"|\bsets?\b|samples"
    r"|\b(?:SFT|DPO|GRPO|PPO|KTO|RL|stage|step) (?:stage )?use[sd]?\b",
    re.IGNORECASE,
)
_NOT_TRAINED_ON = re.compile(
    r"\bevaluat|held[- ]out|\btest (?:set|split|question|part)|benchmark|decontaminat|\bseed (?:question|prompt"
    r"|data|set|problem|instruction)"
    r"|reward model|verifier|\b(?:rejected|discarded|removed|failed) (?:prefix|sampl|items|solutions|data)"
    r"|\bablation|\bbaseline"
    r"|\bpre-?train(?:ed|ing) (?:on|data|corpus)|\bvalidation\b|\bleaderboard\b|\bevaluation\b|annotator"
    r"|\bnot (?:used?|train|include)"
    r"|\bcompar(?:e|ed|ison)\b|\binstead of\b|\b(?:logs?|outputs|checkpoints?|weights|code|models?|demo) (?:are|is)\b",
    re.IGNORECASE,
)
_FOREIGN_LABEL = re.compile(
    r"(?:code|models?|weights|checkpoints?|rejected [\w ]{2,20}|discarded [\w ]{2,20}|test set|benchmark"
    r"|evaluation[\w ]{0,20}|demo|logs)"
    r"\s?:\s?\(?(?:https?://)?$",
    re.IGNORECASE,
)

_FOREIGN_NEAR = re.compile(
    r"\b(?:rollouts|outputs|logs|checkpoints?|models?|code|weights|adapters?|validation|evaluation"
    r"|test)\b[^.;]{0,25}$",
    re.IGNORECASE,
)
_DATASET_LINK = re.compile(r"(?:huggingface\.co|hf\.co)/datasets/", re.IGNORECASE)
_PAIRS = re.compile(r"\bpairs?\b|preference|\bchosen\b", re.IGNORECASE)
_ANSWERS = re.compile(
    r"\btraces\b|demonstration|conversation|dialogue|instruction|\bsolutions\b|completions|responses"
    r"|trajector|worked",
    re.IGNORECASE,
)
_ONE_SET = re.compile(r"\b(?:1|one|single|same) set\b|\bthe same\b", re.IGNORECASE)
_PROMPTS = re.compile(r"\bprompts\b|\bproblems\b|verifiable|\bquestions\b|unit tests", re.IGNORECASE)
_CORPUS = re.compile(
    r"\b(?:training )?(?:data|examples|items|questions|problems)\b[^.;]{0,50}?\b(?:comes?|come|taken|drawn|are"
    r"|is)\b[^.;]{0,20}?"
    r"\bfrom (?:the )?(?P<name>[^.;,]{3,80}?) (?:of|by) (?=[A-Z])"
)
_SET_NAME = re.compile(
    r"(?<![\w/.-])(?:[A-Z][A-Za-z0-9]{0,30}(?:[-_][A-Za-z0-9.]{1,20}){0,4}[-_]\d{1,4}[kK]"
    r"|(?:UltraFeedback|UltraChat|OpenHermes|OpenOrca|SlimOrca|OpenThoughts|NuminaMath|MetaMathQA|HelpSteer|WildChat"
    r"|DAPO-Math|OpenR1-Math)(?:[-_ ]?\d(?:\.\d)?(?!\d))?(?:-[A-Z][A-Za-z]{1,12})?)(?![\w/-])"
)
"""A data set by its name alone: with its size behind it, or one that many papers use."""
_TRAINED_ON = re.compile(
    r"\b(?:train(?:s|ed|ing)?|fine-?tun(?:es?|ed|ing)|tun(?:es?|ed|ing)|SFT|DPO|GRPO|PPO|KTO|RL)\b(?:[^.;:]|\.(?=\d)){0,80}?"
    r"\b(?:on|uses?|used|using|from)\b(?:[^.;:]|\.(?=\d)){0,60}$",
    re.IGNORECASE,
)
_MOST_EVIDENCE = 4000


def named_datasets(document: Document) -> list[DatasetNamed]:
    """Datasets that the paper names as its data, with Hub ids: a paper that only describes one counts, too."""
    found: dict[str, DatasetNamed] = {}
    for dataset, _ in datasets_said(document, list(said(document))):
        found.setdefault(dataset.hub_id or dataset.name, dataset)
    return list(found.values())


def datasets_said(document: Document, sentences: Sequence[Said]) -> Iterator[tuple[DatasetNamed, Said]]:
    """Every mention of such a dataset with its sentence; a footnote is judged by what it hangs on as well."""
    known = {
        hub_id.rsplit("/", 1)[-1].lower() for one in sentences if "/" in one.plain for hub_id in hub_ids(one.plain)
    }
    for one in sentences:
        evidence = Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
        for name in _names(one):
            if name.lower() not in known:
                yield DatasetNamed(name=name, evidence=evidence), one
        for hub_id in _ids(one):
            yield DatasetNamed(name=hub_id, hub_id=hub_id, evidence=evidence), one
        match = _CORPUS.search(one.plain)
        if match is not None and "our" in one.plain.lower() and not hub_ids(one.plain):
            reference = cited_reference(one.raw[one.raw.find(match["name"][-12:]) :], document.references)
            yield (
                DatasetNamed(name=match["name"], arxiv_id=reference.arxiv_id if reference else None, evidence=evidence),
                one,
            )


def kind_of_data(text: str) -> frozenset[TrainingMethod]:
    """The methods that train on what a text speaks of: worked answers, pairs, or prompts with a check."""
    found: set[TrainingMethod] = set()
    if _PAIRS.search(text):
        found |= {"dpo", "kto", "orpo"}
    elif _ANSWERS.search(text):
        found.add("sft")
    elif _PROMPTS.search(text) and not _ONE_SET.search(text):
        found |= {"grpo", "ppo", "rloo"}
    return frozenset(found)


def _names(one: Said) -> Iterator[str]:
    """Data sets that a sentence on the paper's own training names without an owner."""
    if not one.own or one.cited or _NOT_TRAINED_ON.search(one.plain):
        return
    for match in _SET_NAME.finditer(one.raw):
        if not is_model(match[0]) and _TRAINED_ON.search(one.raw[max(match.start() - 200, 0) : match.start()]):
            yield match[0]


def _ids(one: Said) -> Iterator[str]:
    flat = plain(one.raw)
    ids = [hub_id for hub_id in hub_ids(flat) if not is_model(hub_id)]
    if not ids or one.cited:
        return
    around = f"{plain(one.noted)} {flat}"
    linked = bool(_DATASET_LINK.search(flat))
    # a link names a dataset by itself; without one, the sentence has to speak of data
    if not (linked or _DATA.search(re.sub(r"\S*/\S*", " ", around))) or _NOT_TRAINED_ON.search(around):
        return
    for hub_id in ids:
        before = re.split(r",|;|\band\b", flat[: flat.find(hub_id)])[-1]
        if not linked and _FOREIGN_NEAR.search(before):
            continue
        if not _FOREIGN_LABEL.search(flat[: flat.find(hub_id)].replace("huggingface.co/datasets/", "")):
            yield hub_id
