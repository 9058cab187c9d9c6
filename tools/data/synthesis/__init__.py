"""Synthetic rows: generators make them, verifiers check them, the pipeline keeps what is new, right and useful."""

from __future__ import annotations

from collections.abc import Callable

from posttrain_crew.tools.data.synthesis.base import Generator, Verifier
from posttrain_crew.tools.data.synthesis.code_tests import CodeTests
from posttrain_crew.tools.data.synthesis.judging import LLMJudge, SelfConsistency
from posttrain_crew.tools.data.synthesis.procedural import EmbeddedTrainSide, Procedural
from posttrain_crew.tools.data.synthesis.rejection import RejectionSampling
from posttrain_crew.tools.data.synthesis.verifiers import (
    AnswerMatch,
    ArithmeticCheck,
    FormatCheck,
    LanguageCheck,
    LengthCheck,
)
from posttrain_crew.tools.data.synthesis.written import WrittenItems

__all__ = ["BUILTIN_GENERATORS", "BUILTIN_VERIFIERS"]

BUILTIN_GENERATORS: dict[str, Callable[..., Generator]] = {
    "rejection_sampling": RejectionSampling,
    "specification": WrittenItems,
    "procedural": Procedural,
    "gpqa_mini_train": EmbeddedTrainSide,
}
BUILTIN_VERIFIERS: dict[str, Callable[..., Verifier]] = {
    "answer_match": AnswerMatch,
    "format": FormatCheck,
    "length": LengthCheck,
    "language": LanguageCheck,
    "arithmetic_check": ArithmeticCheck,
    "self_consistency": SelfConsistency,
    "code_tests": CodeTests,
    "llm_judge": LLMJudge,
}
