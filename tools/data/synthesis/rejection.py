"""Rejection sampling: let a model answer questions whose answers are known, and keep the answers that are right.

STaR (Zelikman et al., arXiv 2203.14465) and RFT (Yuan et al., arXiv 2308.01825): a model's own right workings teach it
more than its first try shows. RFT keeps workings that differ from each other; so does `prefer: diverse` here.

A right letter may be luck: of four choices, one guess in four is right under a wrong working. `minimum_right` asks
for more than one right sample of a question, and the verifier `arithmetic_check` reads the working itself.

Left out: STaR's rationalisation (showing the answer for questions that stay unsolved), which teaches workings that were
made to fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.rendering import label_of
from posttrain_crew.tools.data.synthesis.answers import AnswerRule
from posttrain_crew.tools.data.synthesis.base import Message, Parameters, Request, Source, SyntheticRow, parameters_as
from posttrain_crew.tools.data.synthesis.rows import make_row, user_turn
from posttrain_crew.tools.data.text import normalised, tokens

__all__ = ["RejectionParameters", "RejectionSampling"]

SHORTEST_WAVE, LONGEST_WAVE = 8, 64
"""Questions asked at a time, by the share of rows that came of earlier ones: sampling ends soon after enough rows are
there, and a batch is not too small."""


class RejectionParameters(Parameters):
    """What rejection sampling can be told."""

    samples: int = Field(default=4, ge=1, le=64, description="completions per question")
    keep: int = Field(
        default=1,
        ge=1,
        le=16,
        description="right completions kept per question; an audit counts a question's second row as a duplicate",
    )
    minimum_right: int = Field(default=1, ge=1, description="right completions that a question needs to be kept")
    prefer: Literal["short", "diverse"] = Field(default="short", description="which right completions are kept")
    answer_rule: Literal["strict", "lenient"] = Field(
        default="strict",
        description="strict: the target's answer line; lenient: the last label or number, and the line is put right",
    )
    temperature: float = Field(default=1.0, gt=0, le=2, description="of sampling; 1 is the model's own distribution")
    max_tokens: int = Field(default=256, ge=1, le=32768, description="new tokens per completion")
    instruction: str = Field(default="", max_length=4000, description="a system turn for the writer; not in the rows")


class RejectionSampling:
    """The generator `rejection_sampling`."""

    summary: ClassVar[str] = "answers of a model to known questions, of which the right ones are kept (STaR, RFT)"
    parameters: ClassVar[type[BaseModel]] = RejectionParameters
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]] = ("model", "questions")

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        """See `Generator`. Counts questions, samples, right, answerless (no answer found in the sample), kept."""
        params = parameters_as(RejectionParameters, request.params)
        sampler = request.need_sampler("rejection_sampling")
        rule = AnswerRule(request.target.answer)
        sources = list(request.need_sources("rejection_sampling"))
        request.rng("questions").shuffle(sources)
        system: list[Message] = [{"role": "system", "content": params.instruction}] if params.instruction else []
        made = asked = 0
        while made < request.rows and asked < len(sources):
            share = made / asked if asked else 1.0
            wanted = math.ceil((request.rows - made) / max(share, 1 / LONGEST_WAVE))
            wave = sources[asked : asked + min(LONGEST_WAVE, max(SHORTEST_WAVE, wanted))]
            asked += len(wave)
            texts = sampler.sample(
                [[*system, user_turn(source.example, request.target.answer)] for source in wave],
                n=params.samples,
                temperature=params.temperature,
                max_tokens=params.max_tokens,
                seed=request.seed,
            )
            if not any(texts) and sampler.left_out["budget"]:
                request.tally["questions_not_asked"] += len(wave) + len(sources) - asked
                return
            for source, said in zip(wave, texts, strict=True):
                for row in self._kept(source, said, rule, params, request, sampler.model):
                    if made < request.rows:
                        made += 1
                        yield row

    def _kept(
        self,
        source: Source,
        texts: Sequence[str],
        rule: AnswerRule,
        params: RejectionParameters,
        request: Request,
        model: str,
    ) -> list[SyntheticRow]:
        lenient = params.answer_rule == "lenient"
        label = label_of(source.example, request.target.answer)
        tally = request.tally
        tally["questions"] += 1
        tally["samples"] += len(texts)
        if label is None:
            tally["questions_without_answer"] += 1
            return []
        read = rule.lenient if lenient else rule.strict
        tally["answerless"] += sum(read(text) is None for text in texts)
        right = [text.strip() for text in texts if rule.is_right(text, label, lenient=lenient)]
        tally["right"] += len(right)
        if len(right) < params.minimum_right:
            tally["questions_dropped"] += 1
            return []
        chosen = _chosen(right, params.keep, params.prefer)
        tally["kept"] += len(chosen)
        return [self._row(source.example, source, text, label, rule, request, model) for text in chosen]

    def _row(
        self, example: Example, source: Source, text: str, label: str, rule: AnswerRule, request: Request, model: str
    ) -> SyntheticRow:
        offsets = rule.lines(text)
        if offsets and rule.is_right(text, label):
            working = text[: offsets[-1]].strip()
        else:  # read leniently: the same words, and the line that the benchmark wants
            working, text = text, f"{text}\n{rule.line(label)}"
        return make_row(
            example,
            request,
            completion=text,
            label=label,
            solution=working or None,
            generator="rejection_sampling",
            parent=source.name,
            model=model,
        )


def _chosen(texts: Sequence[str], keep: int, prefer: Literal["short", "diverse"]) -> list[str]:
    """Different texts, the shortest first; `diverse`: then always the one that is least like those chosen already."""
    unique = {normalised(text): text for text in sorted(texts, key=lambda text: (-len(tokens(text)), text))}
    pool = sorted(unique.values(), key=lambda text: (len(tokens(text)), text))
    if prefer == "short" or len(pool) <= keep:
        return pool[:keep]
    pairs = {text: frozenset(pairwise(tokens(text))) for text in pool}
    chosen = [pool.pop(0)]
    while len(chosen) < keep:
        farthest = min(pool, key=lambda text: (max(_alike(pairs[text], pairs[c]) for c in chosen), pool.index(text)))
        pool.remove(farthest)
        chosen.append(farthest)
    return chosen


def _alike(one: frozenset[tuple[str, str]], other: frozenset[tuple[str, str]]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0
