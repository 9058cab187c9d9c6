"""How papers name hyper-parameters, in prose and in tables, and which values are possible for each.

One row for each TRL field. All patterns work on text that went through `plain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from posttrain_crew.tools.literature.extraction.recipe import HyperValue

__all__ = ["WORDS_OF", "Hyper", "HyperSpec", "in_words", "label_spec", "read_cell", "read_prose"]

# all repeats are bounded, and a number is only read from its first digit: a hostile text must not make this slow
_N = r"(?<![\d.])(?P<v>\d{1,12}(?:\.\d{1,12})?(?:e-?\d{1,3})?)(?!\d)"
_LINK = (
    r"(?:\s?\([^()\d]{0,30}\))?[\s=:]{0,4}"
    r"(?:(?:is|was|are|were|of|at|to|set|fixed|kept|constant|equal|a|the|value|over|for|with|uses?|holds?"
    r"|has)\b[\s=:]{1,4}){0,5}"
)
_TOKENS = r"\s?(?P<k>k\b)?(?:[- ]tokens?)?"
_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "polynomial": "polynomial",
    "wsd": "warmup_stable_decay",
    "inverse square root": "inverse_sqrt",
}
_SCHEDULE = rf"(?P<v>{'|'.join(_SCHEDULES)})"


@dataclass(frozen=True)
class HyperSpec:
    """One hyper-parameter."""

    field: str
    label: str
    """What a table calls it."""
    prose: tuple[str, ...]
    """Ways to state it in a sentence, each with a group `v`."""
    low: float = 0.0
    high: float = 1e7
    whole: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Hyper:
    """One reading."""

    field: str
    value: HyperValue
    unit: str
    start: int = 0
    """Where in the plain text its number begins."""


# the order tells which label wins: the narrower name comes first
SPECS: tuple[HyperSpec, ...] = (
    HyperSpec(
        "warmup_steps",
        r"warm-?\s?up",
        (
            rf"{_N}\s?(?P<u>%|steps)?\s*(?:of (?:the |all )?(?:training "
            rf"|total )?steps )?(?:of )?(?:linear )?warm-?\s?up(?P<u2> steps)?",
            rf"warm(?:ed|s|ing)?[- ]?up (?:linearly )?(?:over|for|during|in) (?:the (?:first"
            rf"|initial) )?{_N}\s?(?P<u>%|steps)?",
            rf"warm-?\s?up(?: (?:ratio|steps?|period|phase|fraction|over|for|during"
            rf"|the first)){{0,3}}{_LINK}{_N}\s?(?P<u>%|steps)?",
        ),
        0.0, 100_000, unit="steps",
    ),
    HyperSpec(
        "lr_scheduler_type",
        r"\bschedul|(?:learning[- ]rate|\blr) decay|^(?:lr )?decay$|annealing",
        (
            rf"\b{_SCHEDULE}(?:ly)?(?: learning[- ]rate| lr)?[- ](?:schedul\w*|decay\w*|annealing|learning[- ]rate)",
            rf"(?:learning[- ]rate|\blr\b)(?: is| was)?(?: kept| held)? {_SCHEDULE}\b",
            rf"(?:learning[- ]rate|\blr\b)[^.;]{{0,60}}?\b(?:decay\w*|anneal\w*)(?: (?:with|by|on|following"
            rf"|along))?(?: an?)? {_SCHEDULE}",
            rf"(?:learning[- ]rate|\blr\b){_LINK}\d[\d.e-]*,? \(?{_SCHEDULE}\b",
            r"(?:learning[- ]rate|\blr\b)[^.;]{0,80}?\b(?:then|and|is|held|kept"
            r"|stays) (?P<v>constant) (?:after|there|then|for)",
            rf"schedul\w*{_LINK}{_SCHEDULE}\b(?! warm)",
        ),
    ),
    HyperSpec(
        "learning_rate",
        r"learning[- ]rate|^(?:(?:peak|max|initial|base|actor|policy) )?lr\b|step size",
        (
            rf"(?:learning[- ]rate|\blr\b|step size){_LINK}{_N}",
            rf"{_N} (?:peak |constant |initial )?learning[- ]rate",
            rf"learning[- ]rates?\b(?:[^.;]|\.(?=\d)){{0,80}}? settled on {_N}",
            rf"learning[- ]rate[^.;\d]{{0,40}}?\b(?:peaks? at|peak of|maximum of|warmed up to|raised to"
            rf"|starts? at|kept at|held at) {_N}",
        ),
        1e-9, 0.2,
    ),
    HyperSpec("weight_decay", r"weight decay|^wd\b", (rf"weight decay{_LINK}{_N}",), 0.0, 1.0),
    HyperSpec(
        "max_grad_norm",
        r"(?:grad\w*|norm)[ -](?:norm )?(?:clip|norm)|clip\w*[ -](?:grad|norm)|max\w*\.? grad",
        (
            rf"gradients?(?: (?:are|were|is|norms?))*[- ]clip\w*(?: (?:at|to|of|by|a|the|global|maximum"
            rf"|norm))*{_LINK}{_N}",
            rf"(?:max\w* )?grad\w* norm{_LINK}{_N}",
            rf"clip\w* (?:the )?gradients?(?: norm)?(?: (?:at|to|of|by|a|the|global|maximum|norm))*{_LINK}{_N}",
        ),
        1e-3, 100.0,
    ),
    HyperSpec(
        "per_device_train_batch_size",
        r"(?:per[- ](?:device|gpu|card)|micro|local).*batch|batch.*per[- ](?:device|gpu|card)",
        (
            rf"{_N} (?:\w+ )?(?:per|on each|for each) (?:device|gpu|card)\b",
            rf"(?:per[- ](?:device|gpu)|micro)[- ]?batch(?:[- ]size)?{_LINK}{_N}",
            rf"batch[- ]size per (?:device|gpu|card){_LINK}{_N}",
        ),
        1, 4096, True, "sequences",
    ),
    HyperSpec(
        "gradient_accumulation_steps",
        r"accumulat",
        (
            rf"{_N} (?:gradient[- ])?accumulation(?: steps)?",
            rf"(?:gradient )?accumulation(?: steps)?{_LINK}{_N}",
            rf"accumulat\w+ (?:gradients )?(?:over|for) {_N}",
        ),
        1, 4096, True, "steps",
    ),
    HyperSpec(
        "effective_batch_size",
        r"^(?!.*ppo mini).*batch|^g?bs$|^bsz$|prompts (?:per|in|a) (?:step|update)|"
        r"(?:questions|sequences|samples) per (?:step|update)",
        (
            rf"\bbatch(?:es)?(?:[- ]sizes?)?(?: of)?{_LINK}{_N}(?! (?:per|on (?:each|every|a|an|1)) )"
            r"(?! for (?!SFT|DPO|GRPO|PPO|KTO|RL\b|all\b|both\b|training|fine-?tun|\d))"
            r"(?! (?:were |are |and )?accumulat)(?!\s?[kKM]?[ -]tokens)",
            rf"{_N} (?P<what>prompts|questions|sequences|examples|samples|pairs|problems|conversations|queries"
            rf"|dialogues)"
            rf" (?:per|in each|in a|in every|for each|at each|each|every) (?:\w+ )?(?:batch|step|update|iteration)",
            rf"\b(?:step|update|iteration|batch)s?\b[^.;]{{0,80}}? (?:completions|responses|rollouts|samples"
            rf"|outputs|answers|solutions)"
            rf" (?:for|to|per) (?:each|every) of {_N} (?P<what>prompts|questions|problems|queries)",
            rf"(?:in|for|at) (?:each|every) (?:\w+ )?(?:step|update|iteration)[^.;\d]{{0,40}}? {_N}"
            rf" (?P<what>prompts|questions|problems|queries|sequences|pairs|examples)\b",
            rf"\b(?:each|every|1|one|an?) (?:\w+ )?(?:step|update|batch|iteration) (?:consists of|comprises"
            rf"|covers|processes|draws"
            rf"|samples) {_N} (?P<what>prompts|questions|problems|queries|sequences|examples|pairs)",
            rf"(?:step|update|batch|iteration) (?:uses|holds|has|takes|sees|contains) {_N} (?P<what>prompts|questions"
            rf"|sequences|examples|pairs|problems)",
        ),
        1, 1e6, True, "sequences",
    ),
    HyperSpec(
        "num_generations",
        r"group size|(?:rollouts|samples|completions|generations|responses|outputs|answers) (?:per|for each|/)"
        r"|^g$|num\w* (?:generations|rollouts)",
        (
            rf"{_N} (?:\w+ )?(?:rollouts|completions|samples|responses|outputs|generations|answers|candidates"
            rf"|solutions|trajectories"
            rf"|attempts) (?:are |is |were )?(?:sampled |drawn |generated )?(?:per|for each|for every|for one"
            rf"|to each|to every)"
            rf" (?:of \d{{1,6}} )?(?:prompt|question|problem|query|group|queries)",
            rf"for (?:each|every) (?:training )?(?:prompt|question|problem|query)(?:[^.;\d]|\d(?=\d"
            rf"|\s?[kK]\b)){{0,50}}? {_N}"
            rf" (?:rollouts|completions|responses|outputs|generations|answers|candidates|solutions|trajectories)",
            rf"prompts?,? (?:and|with|by|×|x) {_N} (?:rollouts|completions|responses|outputs|generations"
            rf"|samples) (?:each|per prompt)",
            rf"{_N} (?:rollouts|completions|responses|outputs|generations|samples) each\b",
            rf"group(?:s)?(?: size)?(?: G)?{_LINK}{_N}",
            rf"\bnum(?:ber of)? (?:generations|rollouts|completions|responses)"
            rf"(?: (?:per|for each) (?:prompt|question|problem|query))?{_LINK}{_N}",
            rf"\bG ?= ?{_N}",
        ),
        2, 4096, True, "completions",
    ),
    HyperSpec(
        "max_completion_length",
        r"(?:completion|response|output|generation|rollout|answer).*(?:length|tokens)|new tokens|(?:length"
        r"|tokens).*(?:completion|response|output|generation|rollout)",
        (
            rf"(?:completions?|responses?|rollouts?|outputs?|generations?|sampled)\b(?:[^.;]"
            rf"|\.(?=\d)){{0,80}}?(?:up to|at most|limited to|maximum(?: length)?(?: of)?|truncated (?:at"
            rf"|to)) {_N}\s?(?P<k>k\b)?\s?tokens",
            rf"(?:completion|response|output|generation|rollout|answer) (?:length"
            rf"|budget)(?: limit)?{_LINK}{_N}{_TOKENS}",
            rf"(?:truncat\w*|cut|cap(?:ped|s)?|limit(?:ed|s)?) (?:the |all )?(?:completion|response|output"
            rf"|generation|rollout|answer)s?"
            rf"(?: length)? (?:at|to|after|off at) {_N}{_TOKENS}",
            rf"(?:completion|response|output|generation|rollout|answer)s? (?:length )?(?:is |are |was "
            rf"|were )?(?:cut|cap(?:ped)?|truncated"
            rf"|limited|bounded)(?: off)? (?:at|to|after|by) {_N}{_TOKENS}",
            rf"(?:up to|at most) {_N}\s?(?P<k>k\b)? (?:new|completion|response|output) tokens",
            rf"\bmax\w*\.? (?:number of )?(?:new|generated|response|output) tokens{_LINK}{_N}{_TOKENS}",
        ),
        8, 1e6, True, "tokens",
    ),
    HyperSpec(
        "max_length",
        r"(?:sequence|context|max\w*\.?|total|input)\s?(?:sequence |context |seq )?(?:length|len\b|window"
        r"|tokens)|^(?:context|cut-?off|sequence length)",
        (
            rf"(?:max\w*\.? |sequence |context )+(?:length|window|size){_LINK}{_N}{_TOKENS}",
            rf"(?:sequences?|examples?|conversations?|inputs?) (?:are |were )?(?:cut|truncated|packed"
            rf"|limited)(?: (?:at|to|after|off))+ {_N}{_TOKENS}",
            rf"(?:sequences?|examples?|conversations?) of (?:at most|up to) {_N}{_TOKENS}",
            rf"truncat\w* (?:all )?(?:sequences|examples|conversations|inputs) (?:longer than|exceeding|beyond|above)"
            rf" {_N}{_TOKENS}",
            rf"(?:at most|up to) {_N}\s?(?P<k>k\b)? tokens per (?:sequence|example|conversation)",
            rf"\bcontext (?:of )?{_N}\s?(?P<k>k\b)?[- ]?tokens",
            rf"(?:^|\band |\bare |\bwere |\bwe |, )truncat\w* (?:at|to|after) {_N}\s?(?P<k>k\b)?[- ]?tokens",
            rf"pack\w* (?:\w+ ){{0,3}}(?:to|into|up to) (?:\w+ ){{0,3}}{_N}\s?(?P<k>k\b)?[- ]?tokens",
        ),
        16, 2e6, True, "tokens",
    ),
    HyperSpec(
        "num_train_epochs",
        r"epochs?\b",
        (rf"{_N} (?:training |full |complete )?(?:epochs?|passes over)\b", rf"\bepochs?{_LINK}{_N}"),
        0.01, 1000,
        unit="epochs",
    ),
    HyperSpec(
        "max_steps",
        r"^(?:total |max\w*\.? |number of |num\w*\.? )?(?:training |optimi[sz]\w+ |gradient |update |policy "
        r"|rl )*(?:steps|updates|iterations)$",
        (
            rf"{_N} (?:training |optimi[sz]er |gradient |update |optimi[sz]ation |policy |RL |GRPO "
            rf"|PPO )?(?:steps|updates)\b"
            rf"(?! (?:of|per) (?:warm|accum|update|batch|iteration|rollout))",
            rf"(?:train\w*|runs?|ran|lasts?|lasted|takes|took|stop\w*|for)(?: (?:for|after|a total of|in total"
            rf"|over|it|the \w+|all \w+"
            rf"|is|was|them)){{0,3}} {_N} (?:training |GRPO |RL |policy )?iterations\b",
        ),
        1, 1e7, True, "steps",
    ),
    HyperSpec("temperature", r"temperature", (rf"temperature{_LINK}{_N}",), 0.0, 5.0),
    HyperSpec("top_p", r"top[-_ ]?p\b|nucleus", (rf"top[-_ ]?p{_LINK}{_N}",), 0.0, 1.0),
    HyperSpec("adam_beta1", r"(?:adam|β).*β?_?1\b|^β_?1$", (rf"(?:β_?1|beta_?1){_LINK}{_N}",), 0.0, 1.0),
    HyperSpec("adam_beta2", r"(?:adam).*β?_?2\b|^β_?2$", (rf"(?:β_?2|beta_?2){_LINK}{_N}",), 0.0, 1.0),
    HyperSpec(
        "beta",
        r"^β$|^beta$|(?:kl|dpo).*(?:coef|weight|β|beta|penalty|strength)|^kl$",
        (
            rf"(?:β|\bbeta\b)(?![_\d]){_LINK}{_N}",
            rf"\bKL[- ](?:coefficients?|weight|penalty|strength|term|loss weight|loss coefficient"
            rf"|regulari[sz]ation)(?: \(?β\)?)?"
            rf"(?: with| coefficient| weight){{0,2}}{_LINK}{_N}",
            rf"(?:coefficient|weight) of the KL(?:[- ](?:term|penalty|divergence))?{_LINK}{_N}",
        ),
        0.0, 10.0,
    ),
    HyperSpec(
        "epsilon_high",
        r"(?:clip|ε).*(?:high|upper|max)|(?:upper|high) clip",
        (rf"ε_?\(?(?:high|max|upper)\)?{_LINK}{_N}", rf"upper clip\w*(?: range| bound| ratio)?{_LINK}{_N}"),
        0.0, 10.0,
    ),
    HyperSpec(
        "epsilon",
        r"clip\w*(?: (?:range|ratio|threshold|parameter|value|ε))*(?: ε)?$|^ε(?:_low)?$|(?:clip|ε).*(?:low|lower)",
        (
            rf"ε(?:_?\(?(?:low|min|lower)\)?)?(?![\w_]){_LINK}{_N}",
            rf"\bclip(?:ping)?(?: range| ratio| threshold| parameter)(?: ε)?{_LINK}{_N}",
        ),
        0.0, 1.0,
    ),
    HyperSpec(
        "lora_r",
        r"(?:lora|adapter).*(?:rank|\br\b)|^rank\b|^r$",
        (rf"\brank(?: r)?{_LINK}{_N}", rf"\br ?= ?{_N}"),
        1, 4096, True,
    ),
    HyperSpec(
        "lora_dropout",
        r"(?:lora|adapter).*dropout|^dropout$",
        (rf"(?:lora|adapter)[- ]dropout(?: rate"
        rf"| probability)?{_LINK}{_N}", rf"\bdropout(?: rate| probability)?{_LINK}{_N}"),
        0.0, 0.9,
    ),
    HyperSpec(
        "lora_alpha",
        r"(?:lora|adapter).*(?:alpha|α)|^α$|^alpha$",
        (rf"(?:\balpha|α){_LINK}{_N}",),
        1, 8192,
    ),
)  # fmt: skip
_LABELS = tuple((spec, re.compile(spec.label, re.IGNORECASE)) for spec in SPECS)
_PROSE = tuple((spec, tuple(re.compile(one, re.IGNORECASE) for one in spec.prose)) for spec in SPECS)
_BETAS = re.compile(
    r"(?:\(?β_?1,? ?(?:and )?β_?2\)?|\bbetas)(?: ?=| of| are| set to|:){0,2} ?[(\[]?(?P<b1>0\.\d{1,4})(?:,"
    r"| and) ?(?P<b2>0\.\d{1,5})"
)
_ADAPTERS = re.compile(r"LoRA|adapter|low-rank", re.IGNORECASE)
_UNITS = re.compile(r"\((?P<unit>[^()]*)\)")
_ARGUMENT = re.compile(r"(?<=[a-z])_(?=[a-z])", re.IGNORECASE)
_SCALE = re.compile(r"^[×x*]?\s*1e(-?\d+)$")
_CELL_NUMBER = re.compile(
    r"^[~≈]?\s*(?P<v>\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?P<u>%|k|tokens|steps|epochs?|prompts|sequences|samples"
    r"|pairs)?(?: of steps)?$",
    re.IGNORECASE,
)


def label_spec(label: str) -> HyperSpec | None:
    """What a row or column of a table of settings is about, or None. The label went through `plain`."""
    bare = " ".join(_UNITS.sub(" ", in_words(label)).split()).strip(" :")
    if not bare or len(bare) > 70:
        return None
    return next((spec for spec, pattern in _LABELS if pattern.search(bare)), None)


def read_cell(label: str, cell: str) -> list[Hyper]:
    """The setting of a labelled cell; several for a pair such as Adam's betas; none for a grid or a dash."""
    spec = label_spec(label)
    if spec is None:
        return []
    label, cell = in_words(label).lower(), cell.strip()
    if re.search(r"β_?1\b.*β_?2|betas", label):
        pair = re.findall(r"\d\.\d+", cell)
        if len(pair) == 2:
            return [Hyper("adam_beta1", float(pair[0]), ""), Hyper("adam_beta2", float(pair[1]), "")]
        return []
    if spec.field == "lr_scheduler_type":
        found = next((name for word, name in _SCHEDULES.items() if word in cell.lower()), None)
        return [Hyper(spec.field, found, "")] if found else []
    match = _CELL_NUMBER.match(cell)
    if match is None:
        return []
    units = [unit["unit"].strip().lower() for unit in _UNITS.finditer(label)]
    value = float(match["v"])
    unit = (match["u"] or "").lower()
    for one in units:
        scale = _SCALE.match(one)
        if scale:
            value = float(f"{match['v']}e{scale[1]}") if "e" not in match["v"] else value
    if unit == "k" or "k" in units or "k tokens" in units:
        value *= 1000
    share = unit == "%" or any("%" in one for one in units) or "ratio" in label or "fraction" in label
    return _checked(spec, value, share and (unit == "%" or any("%" in one for one in units)), "ratio" in label)


def in_words(text: str) -> str:
    """Names of a trainer's arguments as words, of the same length: `learning_rate` as `learning rate`, not `β_1`."""
    return _ARGUMENT.sub(" ", text)


@lru_cache(maxsize=8192)
def read_prose(sentence: str) -> tuple[Hyper, ...]:
    """All settings of one sentence that went through `plain`. A number is read once, by the first name that fits."""
    sentence = in_words(sentence)
    found: list[Hyper] = []
    taken: list[tuple[int, int]] = []
    for match in _BETAS.finditer(sentence):
        found += [Hyper(f"adam_beta{at}", float(match[f"b{at}"]), "", match.start(f"b{at}")) for at in (1, 2)]
        taken += [match.span("b1"), match.span("b2")]
    for spec, patterns in _PROSE:
        if spec.field in ("lora_r", "lora_alpha", "lora_dropout") and not _ADAPTERS.search(sentence):
            continue
        for pattern in patterns:
            for match in pattern.finditer(sentence):
                start, end = match.span("v")
                if any(start < until and begin < end for begin, until in taken):
                    continue
                if _is_grid(sentence, end) or _ends_range(sentence[max(start - 24, 0) : start]):
                    taken.append((start, end))
                    continue
                groups = match.groupdict()
                if spec.field == "lr_scheduler_type":
                    read = [Hyper(spec.field, _SCHEDULES[match["v"].lower()], "")]
                else:
                    unit = (groups.get("u") or groups.get("u2") or "").strip().lower()
                    value = float(match["v"]) * (1000 if groups.get("k") else 1)
                    percent = unit == "%" or sentence[end : end + 2].strip().startswith("%")
                    read = _checked(spec, value, percent, False, groups.get("what"))
                found.extend(Hyper(one.field, one.value, one.unit, start) for one in read)
                taken.append((start, end))
    return tuple(sorted(found, key=lambda one: one.start))


def _is_grid(sentence: str, end: int) -> bool:
    """Whether the number goes on as a list of numbers: `1e-6, 5e-6 and 1e-5`."""
    return bool(
        re.match(
            r"\s?(?:,| and| or| to|-|/)\s?(?:and |or )?\d+(?:\.\d+)?(?:e-?\d+)?(?:\s?(?:,|and|or|\)|$|\.))",
            sentence[end : end + 30],
        )
    )


def _ends_range(before: str) -> bool:
    """Whether a number ends a range or a list: `1 to 5`, `2-3`, `1, 3 and 5`."""
    return bool(
        re.search(
            r"(?<![\w.])\d[\d.]{0,6}(?:e-?\d{1,2})?(?:\s?(?:to|or|-)\s?"
            r"|, \d[\d.]{0,6}(?:e-?\d{1,2})?,? (?:and|or) )$",
            before,
        )
    )


def _checked(spec: HyperSpec, value: float, percent: bool, share: bool, what: str | None = None) -> list[Hyper]:
    unit = what or spec.unit
    if spec.field == "warmup_steps":
        if percent:
            value = round(value / 100, 10)
        if value >= 1 and not float(value).is_integer():
            return []
        unit = "share of steps" if percent or share or 0 < value < 1 else "steps"
        if value == 1 and unit != "steps":
            return []
    elif percent:
        return []
    if not spec.low <= value <= spec.high or (spec.whole and not float(value).is_integer()):
        return []
    whole = spec.whole or (
        spec.field in ("num_train_epochs", "warmup_steps", "lora_alpha") and float(value).is_integer()
    )
    return [Hyper(spec.field, int(value) if whole else value, unit)]


WORDS_OF: dict[str, str] = {
    **{spec.field: spec.label for spec in SPECS},
    "learning_rate": r"learning[- ]rate|\blr\b|step size",
    "weight_decay": r"weight decay|\bwd\b",
    "lr_scheduler_type": r"schedul|decay|anneal|learning[- ]rate|\blr\b|cosine|warm",
    "max_grad_norm": r"clip|grad\w* norm",
    "effective_batch_size": r"batch|\bg?bsz?\b|(?:per|each|every) (?:\w+ )?(?:step|update|iteration)"
    r"|step (?:uses|sees)"
    r"|(?:step|iteration|update) (?:consists|comprises|covers|processes|draws|samples|uses|holds|has|takes|sees"
    r"|contains)",
    "per_device_train_batch_size": r"per[- ](?:device|gpu|card)|micro|on each|batch",
    "max_completion_length": r"completion|response|output|generat|rollout|answer|tokens",
    "max_length": r"length|\blen\b|tokens|context|window|cut|truncat",
    "lora_dropout": r"dropout",
    "num_generations": r"group|solutions|trajectories|attempts|rollouts|samples|completions|generations"
    r"|responses|outputs|answers|candidates|\bG\b",
    "max_steps": r"\bsteps\b|updates|iterations",
    "beta": r"β|\bbeta\b|\bKL\b",
    "epsilon": r"clip|ε|epsilon",
    "epsilon_high": r"clip|ε|epsilon",
    "adam_beta1": r"β|\bbeta|adam",
    "adam_beta2": r"β|\bbeta|adam",
    "lora_r": r"\brank\b|\br\b",
    "lora_alpha": r"α|\balpha\b",
    "temperature": r"temperature",
    "num_iterations": r"iteration|updates per|\bμ\b|mu\b",
    "steps_per_generation": r"per generation|rollout",
    "loss_type": r"loss",
    "importance_sampling_level": r"importance|sequence|token",
    "mask_truncated_completions": r"mask|truncat",
    "scale_rewards": r"normali|scal|standard deviation",
}
"""Field -> words of which at least one must stand where a field's value is cited. Every name of FIELDS has its
words."""
