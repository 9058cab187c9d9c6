"""Generators and verifiers by name, with their parameters from text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from posttrain_crew.errors import InputError, PluginError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.tools.data.synthesis.base import Generator, NoParameters, Verifier
from posttrain_crew.tools.data.synthesis.verifiers import Bench

__all__ = ["catalogue", "find_generator", "find_verifier", "make_parameters", "split_setting", "verifier_names"]


def find_generator(name: str) -> Generator:
    """The generator of this name. Raises InputError for an unknown one, PluginError for one that is none."""
    registered: dict[str, Callable[..., Generator]] = merged(hooks().register_generators())
    if name not in registered:
        raise InputError(f"there is no generator `{name}`. Known: {', '.join(sorted(registered))}.")
    made = registered[name]()
    if not isinstance(made, Generator):
        raise PluginError(f"the generator `{name}` lacks summary, parameters, needs or generate().")
    return made


def find_verifier(name: str, bench: Bench, settings: Mapping[str, Any]) -> Verifier:
    """The verifier of this name, ready to be used.

    Raises:
        InputError: the name or a parameter is wrong, or it needs a model. GateError: it may not run here.
    """
    registered = _verifiers()
    if name not in registered:
        raise InputError(f"there is no verifier `{name}`. Known: {', '.join(sorted(registered))}.")
    factory = registered[name]
    kind = getattr(factory, "parameters", NoParameters)
    made = factory(bench, make_parameters(kind, settings, f"the verifier `{name}`"))
    if not isinstance(made, Verifier):
        raise PluginError(f"the verifier `{name}` lacks summary, parameters or verify().")
    return made


def verifier_names() -> list[str]:
    """All registered verifiers."""
    return sorted(_verifiers())


def make_parameters(kind: type[BaseModel], settings: Mapping[str, Any], whose: str) -> BaseModel:
    """Parameters from texts or values. Raises InputError that names what is wrong and what there is."""
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        known = ", ".join(kind.model_fields) or "(none)"
        raise InputError(f"{whose} cannot take these parameters: {problems}. It takes: {known}.") from error


def split_setting(text: str) -> tuple[str, str]:
    """`key=value` as two texts. Raises InputError for anything else."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"{text!r} is no parameter: write it as `key=value`.")
    return key.strip(), value


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """What is registered, for `--list`: by `generators` and `verifiers`, each with name, summary and parameters."""
    generators: dict[str, Callable[..., Generator]] = merged(hooks().register_generators())
    return {
        "generators": [
            {**_described(name, made), "needs": list(getattr(made, "needs", ()))}
            for name, made in sorted(generators.items())
        ],
        "verifiers": [_described(name, made) for name, made in sorted(_verifiers().items())],
    }


def _verifiers() -> dict[str, Callable[..., Verifier]]:
    found: dict[str, Callable[..., Verifier]] = merged(hooks().register_verifiers())
    return found


def _described(name: str, made: object) -> dict[str, Any]:
    kind: type[BaseModel] = getattr(made, "parameters", NoParameters)
    described: Sequence[dict[str, Any]] = [
        {
            "name": key,
            "default": "(needed)" if field.is_required() else field.default,
            "description": field.description or "",
        }
        for key, field in kind.model_fields.items()
    ]
    return {"name": name, "summary": getattr(made, "summary", ""), "parameters": list(described)}
