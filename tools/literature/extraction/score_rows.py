"""Which rows of a table of results are the model before and after training.

Rows are only paired within one block: those of one model, where a table has several. Where two rows could be meant, or
the block's model is not told, there is no pair.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.labels import models_told, size_in
from posttrain_crew.tools.literature.extraction.mentions import benchmark_in, model_key, models_in, named_in
from posttrain_crew.tools.literature.extraction.recipe import TrainingMethod
from posttrain_crew.tools.literature.extraction.scope import cites_others, methods_in
from posttrain_crew.tools.literature.reading.document import Document, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["Row", "Wanted", "own_names", "pick_after", "pick_before", "rows_for", "rows_of"]

_BASE_WORDS = frozenset(
    [
        "base",
        "base model",
        "none",
        "start",
        "starting model",
        "before",
        "before training",
        "untrained",
        "untuned",
        "initial",
        "zero-shot",
        "0-shot",
        "no training",
        "original",
        "not trained",
        "w/o training",
        "no tuning",
        "no fine-tuning",
        "pretrained",
        "pre-trained",
        "initial model",
        "initial policy",
        "initial checkpoint",
    ]
)
_AFTER_WORDS = frozenset({"after", "after training", "trained", "tuned", "fine-tuned"})
_BASE_SIDE = re.compile(
    r"\b(?:start|base|none|before|initial|(?:zero|0)-shot|original|untuned|no training)\b", re.IGNORECASE
)
_OURS = re.compile(r"\bours?\b|\bthis (?:work|paper)\b", re.IGNORECASE)
_PARTIAL = re.compile(
    r"\bonly\b|w/o|without|ablat|baseline|\brandom\b|\bstandard\b|\bnaive\b|\*|re-?run|reproduc|vanilla|[−–] |^- |^-\w"
    r"|few-shot|[2-9]\d?-shot|majority|maj@|best-of|self-consist|\bhalf\b|quarter|\d ?% of|prompt|replaced?\b"
    r"|→ (?!GRPO|DPO|PPO)",
    re.IGNORECASE,
)
_FOREIGN_BLOCK = re.compile(
    r"\bother|baseline|prior|previous|published|proprietary|closed|reference|concurrent|ablat|open[- ](?:weight"
    r"|source)",
    re.IGNORECASE,
)
_TRAINED_SUFFIX = re.compile(r"(?<=\w)[-_](?:SFT|DPO|GRPO|PPO|RLOO|KTO|ORPO|RL|LoRA|QLoRA|FT)\b", re.IGNORECASE)
_INNER_CAPITALS = re.compile(r"(?<![\w/-])(?=\w*[A-Z])(?=[\w-]*[A-Z0-9][\w-]*[A-Z])[A-Za-z][\w-]{2,30}(?![\w/])")
_INTRODUCED = re.compile(
    r"\b(?:we|our)\b(?:[^.;]|\.(?=\d)){0,120}?\b(?:present|introduce|propose|describe|release|train|develop|call|adapt"
    r"|fine-?tune|tune|using|with"
    r"|by|use)\b",
    re.IGNORECASE,
)
_COMMON_NAMES = re.compile(
    r"^(?:SFT|DPO|GRPO|PPO|RLOO|KTO|ORPO|RL|RLHF|RLVR|LLMs?|LMs?|LoRA|QA|AI|NLP|GPUs?|CoT|KL|TRL|vLLM|DeepSpeed|FSDP)$"
)


@dataclass(frozen=True)
class Wanted:
    """A recipe whose results are looked for."""

    method: TrainingMethod
    model: str | None
    final: bool
    """It is the last stage of the paper's pipeline: what is `ours` without a method is its result."""


@dataclass(frozen=True)
class Row:
    """A row of results."""

    names: tuple[str, ...]
    """What names it, from the outermost, without TeX and dashes."""
    cells: tuple[str, ...]
    block: str
    """The name of the block it is in, or nothing."""
    part: int
    """Number of its block."""

    @property
    def label(self) -> str:
        """All its names."""
        return " ".join(dict.fromkeys(self.names))

    @property
    def parts(self) -> str:
        """Its names kept apart: `Qwen3-4B ; Base` is not the model `Qwen3-4B Base`."""
        return " ; ".join(dict.fromkeys(self.names))


def own_names(document: Document) -> tuple[str, ...]:
    """What the paper calls its own method or model: the name before the title's colon, or that an abstract gives.

    Names of models and benchmarks that others made are none.
    """
    head, colon, _ = document.title.partition(":")
    texts = [head] if colon and len(head) < 60 else []
    for sentence in re.split(r"(?<=[.!?])\s", document.abstract[:4000]):
        if match := _INTRODUCED.search(sentence):
            texts.append(re.split(r"[,;]", sentence[match.end() :])[0][:160])
    names = {match[0] for text in texts for match in _INNER_CAPITALS.finditer(text)}
    return tuple(
        sorted(
            name
            for name in names
            if not _COMMON_NAMES.match(name) and benchmark_in(name) is None and not models_in(name)
        )
    )


def rows_of(table: Table) -> list[Row]:
    """The rows with their blocks: a spanning title, or a first name that several rows share, makes a block."""
    heads = table.row_heads
    raw = [(tuple(plain(cell)[:300] for cell in row[:heads]), row) for row in table.rows]
    grouped = heads > 1 and any(
        one[0][0] and (one[0][0] == two[0][0] or not two[0][0]) for one, two in itertools.pairwise(raw)
    )
    lone = [_only_model(names[0]) for names, _ in raw if names]
    stepped = not grouped and sum(lone) > 1 and any(names and names[0].startswith("+") for names, _ in raw)
    rows: list[Row] = []
    title, first, part = "", "", 0
    for names, row in raw:
        filled = [cell for cell in row if cell]
        if len(row) > 2 and filled and len(set(filled)) == 1 and (len(filled) > heads or not any(row[1:])):
            title, part, first = plain(filled[0])[:300], part + 1, ""
            continue
        if (grouped and names[0] and names[0] != first) or (stepped and names and _only_model(names[0])):
            first, part = names[0], part + 1
        kept = [title, first if grouped or stepped else "", *names]
        told = tuple(dict.fromkeys(name for name in kept if name.strip("-–—− ")))
        rows.append(Row(told, row, f"{title} {first}".strip(), part))
    return rows


def _modelled(text: str) -> bool:
    return bool(models_in(text)) or size_in(text) is not None


def rows_for(rows: Sequence[Row], want: Wanted, wanted: Sequence[Wanted], told_elsewhere: bool) -> list[Row]:
    """The rows that may be those of one recipe.

    Args:
        told_elsewhere: the caption or the column names the recipe's model.
    """
    models = list(dict.fromkeys(one.model for one in wanted if one.model))
    key = model_key(want.model) if want.model else ""
    if any(_modelled(row.block) for row in rows):
        parts = {row.part for row in rows if key and key in (models_told(_untrained(row.block), models) or ())}
        if len(parts) != 1:
            return []
        inside = [row for row in rows if row.part in parts]
        return [row for row in inside if _tells(row.parts, models) in (frozenset(), frozenset({key}))]
    fitting = [row for row in rows if (told := _tells(row.parts, models)) is not None and (not told or key in told)]
    if len(models) > 1 and not told_elsewhere:
        fitting = [row for row in fitting if key in (_tells(row.parts, models) or ())]
    return fitting


def _untrained(label: str) -> str:
    return _TRAINED_SUFFIX.sub("", label)


def _tells(label: str, models: Sequence[str]) -> frozenset[str] | None:
    return models_told(_untrained(label), models)


def _only_model(label: str) -> bool:
    """A name of a model and nothing else."""
    names = models_in(label)
    return len(names) == 1 and len(label.replace(names[0].lower(), "").replace(names[0], "").strip(" ()*")) < 3


def pick_before(rows: Sequence[Row], want: Wanted) -> Row | None:
    """The row of the model before training: by its very name, by a word such as `base`, or by a short form."""
    own = model_key(want.model) if want.model else ""
    ranked: list[tuple[int, Row]] = []
    for row in rows:
        if not row.names or cites_others(row.label):
            continue
        last = row.names[-1].lower().strip(" .:")
        inner = [name for name in row.names if name != row.block] or list(row.names)
        keys = {model_key(name) for name in models_in(" ; ".join(inner))}
        trained = methods_in(row.label) or _OURS.search(row.label) or "+" in last or _PARTIAL.search(last)
        if trained and last not in _BASE_WORDS:
            continue
        alone = _only_model(row.names[-1])
        if own and alone and own in keys:
            ranked.append((4, row))
        elif last in _BASE_WORDS or (own.endswith(f"-{last}") and len(last) > 3) or re.match(r"(?:none|base)\b", last):
            ranked.append((3, row))
        elif own and (alone or _BASE_SIDE.search(last)) and any(_short_form(key, own) for key in keys):
            ranked.append((2, row))
    best = max((rank for rank, _ in ranked), default=0)
    chosen = [row for rank, row in ranked if rank == best]
    return chosen[0] if len(chosen) == 1 else None


def _short_form(key: str, own: str) -> bool:
    """`qwen3-1.7b` for `qwen3-1.7b-base` or the other way round; `-instruct` behind it is another model."""
    return key == own or own.startswith(f"{key}-") or key == f"{own}-base" or key.startswith(f"{own}-(")


def pick_after(rows: Sequence[Row], want: Wanted, wanted: Sequence[Wanted], names: Sequence[str]) -> Row | None:
    """The row of the finished recipe: `ours` first, then a name of the paper's own, then its method after earlier
    stages, then its method alone. None when two rows fit as well."""
    methods = {one.method for one in wanted}
    learned = sorted(methods & {"grpo", "ppo", "rloo"})
    reinforced = learned[0].upper() if len(learned) == 1 else ""
    ranked: list[tuple[int, Row]] = []
    for row in rows:
        label = row.label
        if not row.names or cites_others(label) or "†" in label or _FOREIGN_BLOCK.search(row.names[0]):
            continue
        found = methods_in(re.sub(r"\bRL(?:VR|HF)?\b", reinforced, label) if reinforced else label)
        strong = {method for method, weight in found.items() if weight == 2}
        named = strong | (set(found) if len(methods) == 1 else set())
        ours = bool(_OURS.search(label))
        partial = bool(_PARTIAL.search(label))
        mine = want.method in strong or (not strong and want.final)
        if not want.final and (strong & methods) - {want.method}:
            continue  # the result of a later stage
        if row.names[-1].lower().strip(" .:") in _AFTER_WORDS:
            ranked.append((3, row))
        elif ours and mine and not partial:
            ranked.append((5, row))
        elif mine and not partial and any(named_in(name, label) for name in names):
            ranked.append((4, row))
        elif want.method in named and named - {want.method} and want.final and not partial and named <= methods:
            ranked.append((3, row))
        elif named == {want.method} and (not partial or (not want.final and len(wanted) > 1 and _just_only(label))):
            ranked.append((2, row))
    if not ranked and want.final and len(rows) == 2:
        # a base and one `+ ...`: nothing else could be meant
        ranked = [(1, row) for row in rows if row.names[-1].startswith("+") and not _PARTIAL.search(row.label)]
    best = max((rank for rank, _ in ranked), default=0)
    chosen = [row for rank, row in ranked if rank == best]
    if best <= 2 and len(rows) > 2 and any(_unknown(row) for row in rows if row not in chosen):
        return None  # "GRPO" beside a name that nothing explains may be the baseline
    return chosen[0] if len(chosen) == 1 else None


def _unknown(row: Row) -> bool:
    """A row that is no model by its name, no base, no method, no prompt, and cites nobody."""
    last = row.names[-1].lower().strip(" .:") if row.names else ""
    return not (
        not last
        or last in _BASE_WORDS
        or _BASE_SIDE.search(last)
        or _only_model(row.names[-1])
        or 2 in methods_in(row.label).values()
        or re.search(r"\w-\d{1,3}(?:\.\d)?B\b", last, re.IGNORECASE)
        or _PARTIAL.search(row.label)
        or cites_others(row.label)
        or "†" in row.label
        or _FOREIGN_BLOCK.search(row.names[0])
    )


def _just_only(label: str) -> bool:
    return bool(re.search(r"\bonly\b", label, re.I)) and not re.search(
        r"w/o|without|ablat|baseline|\*|answers? only|re-?run|vanilla", label, re.IGNORECASE
    )
