"""Models, datasets and machines that a text names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain_crew.tools.literature.reading.document import Reference

__all__ = [
    "MachineRead",
    "benchmark_in",
    "cited_reference",
    "hub_ids",
    "is_model",
    "machine",
    "model_key",
    "models_in",
    "named_in",
]

_FAMILIES = (
    "Qwen|Llama|Mistral|Mixtral|Ministral|Gemma|SmolLM|Phi|DeepSeek|OLMo|Pythia|Falcon|GPT|TinyLlama|StableLM|Yi|InternLM"
    "|MiniCPM|Granite|Nemotron|Baichuan|ChatGLM|GLM|BLOOM|OPT|MPT|RWKV|Mamba|Cerebras|LFM|Apertus|EXAONE|Command"
)
_MODEL = re.compile(
    rf"(?<![\w/.-])(?:[A-Za-z0-9][\w.-]{{0,40}}/)?(?:{_FAMILIES})[\w.-]{{0,40}}\d[\w.-]{{0,60}}", re.IGNORECASE
)
_SPACED = re.compile(
    rf"(?<![\w/.-])(?:{_FAMILIES})(?:[ -]?v?\d[\w.]{{0,5}})?[ -]\d{{1,3}}(?:\.\d{{1,2}})?[BM](?![\w])"
    r"(?:[ -](?:Instruct|Base|Chat)\b)?"
)
"""`Llama 3.1 8B Instruct`: names in words, with spaces between their parts."""
_SIZE = re.compile(r"(?:^|[-_])\d+(?:\.\d+)?[bBmM](?:$|[-_])")
_FAMILY_START = re.compile(rf"^(?:{_FAMILIES})[-\d._]", re.IGNORECASE)
_DATA_NAME = re.compile(
    r"traces|data|prompts|pairs|corpus|\bmix|\d[kK]\b|preference|questions|conversations|feedback", re.IGNORECASE
)
_HUB_ID = re.compile(r"(?<![\w/:.@\\-])[A-Za-z0-9][\w.-]{0,38}/[A-Za-z0-9][\w.-]{1,94}(?![\w/])")
_HUB_LINK = re.compile(
    r"(?:huggingface\.co"
    r"|hf\.co)/(?:datasets/)?([A-Za-z0-9][\w-]{0,38}/[A-Za-z0-9][\w.-]{1,94})(?![\w/])",
    re.IGNORECASE,
)
_NO_OWNER = frozenset(
    [
        "and",
        "or",
        "his",
        "her",
        "input",
        "output",
        "train",
        "test",
        "dev",
        "per",
        "he",
        "she",
        "gpu",
        "cpu",
        "w",
        "n",
        "a",
        "yes",
        "true",
        "pass",
        "ci",
        "on",
        "off",
        "question",
    ]
)
_KNOWN_BENCHMARK = re.compile(
    r"(?<![\w/-])(?:GSM8K|GSM-?Hard|MATH(?:-?500)?|MMLU(?:-Pro|-Redux)?|ARC(?:-Challenge|-Easy|-C|-E)|SciQ"
    r"|GPQA(?:[ -]Diamond)?"
    r"|AIME(?: ?(?:20|[’'])?2\d)?(?: I{1,2}\b)?|AMC(?: ?(?:20|[’'])?2\d)?|HMMT(?: ?(?:20)?2\d)?|IFEval"
    r"|AlpacaEval(?: 2(?:\.0)?)?|MT-?Bench|Arena-?Hard|SVAMP|MAWPS"
    r"|HumanEval\+?|MBPP\+?"
    r"|BBH|HellaSwag|OpenBookQA|TruthfulQA|LiveCodeBench|WinoGrande|BoolQ|PIQA|DROP|MGSM|OlympiadBench"
    r"|Minerva(?:[ -]?Math)?|ASDiv|TheoremQA|AGIEval|C-?Eval|CMMLU|LogiQA|FinQA|HotpotQA|ToxiGen|BFCL|MuSR|ScienceQA"
    r"|CommonsenseQA"
    r"|StrategyQA|MedQA|PubMedQA|MedMCQA|LegalBench|RACE|TriviaQA|NaturalQuestions|SQuAD|XNLI|FLORES)(?![\w/])",
    re.IGNORECASE,
)
_NAMELIKE = re.compile(r"(?<![\w/-])[A-Z][a-z]*(?:[A-Z]\w*|-?[A-Z]{2}\w*)(?:-[A-Z0-9]\w*)*(?: 20\d\d)?(?![\w/])")
_BENCH_WORD = re.compile(r"bench|eval|qa|quad|math|arc|exam|quiz|test|safe|logic|puzzle|code|gsm", re.IGNORECASE)
_GPU = (
    r"(?P<gpu>(?:RTX |GTX |Tesla |Quadro )?(?:A100|H100|H200|H800|A800|B200|GH200|A6000|A5000|A40|A10G?|V100|T4"
    r"|L40S?|L4|P100"
    r"|MI\d{3}X?|5090|4090|3090|2080 ?Ti))(?![\d])(?!s?[- ](?:GPU[- ])?(?:hours?|days?"
    r"|h)\b)s?(?:[- ]GPUs?)?(?:[- ]?(?:SXM\d?"
    r"|PCIe))?(?:[- ]?\(?(?P<memory>\d{2,3})\s?GB\)?)?"
)
_MACHINE = re.compile(rf"(?:(?P<count>\d{{1,5}})\s*[×x]?\s*|(?<!\w))(?:NVIDIA )?{_GPU}", re.IGNORECASE)
_MACHINE_TIMES = re.compile(rf"(?:NVIDIA )?{_GPU}\s*[×x]\s*(?P<count>\d{{1,5}})", re.IGNORECASE)
_GPUS_ONLY = re.compile(r"(?<![\d.e-])(?P<count>\d{1,5}) GPUs?\b")
_TIME = re.compile(r"(?<![\w.])(?P<time>\d+(?:\.\d+)?)[ -]?(?P<unit>hours?|hrs?|h|minutes?|days?)\b", re.IGNORECASE)
_TOTALS = re.compile(r"together|total|altogether|budget|all experiments|this paper|\boverall\b", re.IGNORECASE)
_NODES = re.compile(
    r"(?<![\d.])(?P<nodes>\d{1,4}) (?:\w+ )?(?:nodes|machines|servers|hosts)\b[^.;\d]{0,30}?(?:\bwith|\bof"
    r"|[×x,(]|\beach)\D{0,20}?"
    r"(?P<each>\d{1,3})\s?[×x]?\s?(?:NVIDIA |AMD )?(?P<what>[A-Z]\w*)",
)
_PLURAL_ALL = re.compile(r"(?<![\d.])(?P<count>\d{1,5}) (?:GPUs|accelerators)(?: in (?:total|all)|\))", re.IGNORECASE)
_HOURS = {"h": 1.0, "m": 1 / 60, "d": 24.0}


def model_key(name: str) -> str:
    """The same model under a Hub id and in words: `Qwen/Qwen3-1.7B` and `Qwen3 1.7b` give one key."""
    return re.sub(r"[\s_-]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-.")


def models_in(text: str) -> list[str]:
    """Names of language models, in order."""
    spaced = [match for match in _SPACED.finditer(text) if " " in match[0]]
    found = [(match.start(), match[0]) for match in spaced]
    for match in _MODEL.finditer(text):
        if not any(one.start() <= match.start() < one.end() for one in spaced):
            found.append((match.start(), match[0].rstrip(".-")))
    return list(dict.fromkeys(name for _, name in sorted(found) if re.search(r"\d", name)))


def named_in(name: str, text: str) -> bool:
    """Whether a text has a name as a whole: `Qwen3-1.7B` is not in `Qwen3-1.7B-Base`, but is in `Qwen/Qwen3-1.7B.`"""
    return bool(name) and bool(re.search(rf"(?<!\w)(?<!\w[-.]){re.escape(name)}(?![-./]?\w)", text, re.IGNORECASE))


def is_model(hub_id: str) -> bool:
    """Whether an id looks like that of a model and not of a dataset."""
    name = hub_id.rsplit("/", 1)[-1]
    return bool((_FAMILY_START.match(name) or _SIZE.search(name)) and not _DATA_NAME.search(name))


def hub_ids(text: str) -> list[str]:
    """Ids of the form `owner/name`, in order; words with a slash between them are none."""
    found = [match[1].rstrip(".-") for match in _HUB_LINK.finditer(text)]
    for match in _HUB_ID.finditer(text):
        name = match[0].rstrip(".-")
        owner, _, rest = name.partition("/")
        if (
            owner.lower() in _NO_OWNER
            or owner.lower() == "datasets"
            or (owner.isdigit() and rest[:1].isdigit())
            or "." in owner
        ):
            continue
        found.append(name)
    return list(dict.fromkeys(found))


def benchmark_in(text: str, named: Sequence[str] = ()) -> str | None:
    """The benchmark that a column head or a sentence names.

    Args:
        named: further names that count, for example those of the paper's own test sets.
    """
    known = _KNOWN_BENCHMARK.search(text)
    if known is not None:
        return known[0]
    for name in named:
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
            return name
    like = next((match[0] for match in _NAMELIKE.finditer(text) if _BENCH_WORD.search(match[0])), None)
    return like if like is not None and not _MODEL.search(text) else None


@dataclass(frozen=True)
class MachineRead:
    """What a sentence says of the machine."""

    gpu: str | None
    count: int | None
    hours: float | None


def machine(sentence: str) -> MachineRead | None:
    """GPU, number and wall-clock hours of one sentence that went through `plain`."""
    found = [match for match in _MACHINE.finditer(sentence) if match["gpu"]]
    gpu, count = None, None
    if found:
        best = next((match for match in found if match["count"]), found[0])
        turned = _MACHINE_TIMES.search(sentence)
        count = int(best["count"]) if best["count"] else int(turned["count"]) if turned else None
        name = best["gpu"].strip()
        gpu = f"{name}-{best['memory']}GB" if best["memory"] else name
        # "4 nodes with 8 H100 each": all cards of all nodes
        if every := _PLURAL_ALL.search(sentence):
            count = int(every["count"])
        elif nodes := _NODES.search(sentence):
            count = int(nodes["nodes"]) * int(nodes["each"])
        elif re.search(r"(?<![\d.])(?!1 )\d{1,4} (?:\w+ )?(?:nodes|machines|servers|hosts)\b", sentence):
            count = None
    elif (only := _GPUS_ONLY.search(sentence)) is not None:
        count = int(only["count"])
    times = list(_TIME.finditer(sentence))
    hours = None
    if len(times) == 1 and not _TOTALS.search(sentence):
        hours = round(float(times[0]["time"]) * _HOURS[times[0]["unit"][0].lower()], 4)
    if (
        gpu is None
        and count is None
        and (hours is None or not re.search(r"\b(?:run|train|took|takes|round)", sentence, re.IGNORECASE))
    ):
        return None
    return MachineRead(gpu, count, hours)


def cited_reference(text: str, references: Sequence[Reference]) -> Reference | None:
    """The first entry of the bibliography that a text cites."""

    def bare(label: str) -> str:
        return " ".join(re.sub(r"[\[\](),.]", " ", label).lower().split())

    flat = bare(text)
    for match in re.finditer(r"\[(\d+)\]", text):
        for reference in references:
            if reference.label.strip("[]. ") == match[1]:
                return reference
    placed: list[tuple[int, Reference]] = [
        (flat.index(label), reference)
        for reference in references
        if len(label := bare(reference.label)) > 6 and label in flat
    ]
    return min(placed, key=lambda item: item[0])[1] if placed else None
