"""`crew data synthesize`: make a dataset of synthetic rows, verified, without repeats or benchmark items."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain_crew.crews.cli_common import JsonFlag, echo_json
from posttrain_crew.errors import InputError

if TYPE_CHECKING:
    from posttrain_crew.tools.data.synthesis.plan import Card, Plan

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module, to the group `data`."""
    app.command("synthesize")(synthesize)


def synthesize(
    generator: Annotated[str | None, typer.Option(help="What makes the rows (--list names them).")] = None,
    target: Annotated[str | None, typer.Option(help="Benchmark: a name (`crew targets`) or a YAML file.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder of the model that writes, or `builtin:NAME`.")] = None,
    llm: Annotated[str | None, typer.Option(help="A litellm model that writes or judges, e.g. `openai/gpt-5`.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Dataset with questions and known answers.")] = None,
    spec: Annotated[str | None, typer.Option(help="YAML specification, or the name of a shipped one.")] = None,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="Rows to make; the checks leave fewer.")] = 200,
    verifier: Annotated[
        list[str] | None, typer.Option(help="A check, with parameters as `length:max_words=200,min_words=5`.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Model folder or `builtin:NAME`: keep what it gets right sometimes only.")
    ] = None,
    pass_rate: Annotated[str, typer.Option(help="Bounds of the student's pass rate, LOW:HIGH, exclusive.")] = "0:1",
    student_samples: Annotated[int, typer.Option(min=2, max=64, help="The student's samples per question.")] = 8,
    hard_weight: Annotated[float, typer.Option(min=1, max=10, help="Weight of a row with pass rate 0.")] = 1.0,
    max_repeats: Annotated[int, typer.Option(min=1, max=10, help="Times that a row is in the file at most.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder of the new dataset; the same call goes on in it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, model and data: same rows.")] = 0,
    param: Annotated[list[str] | None, typer.Option(help="Parameter of the generator, `key=value`.")] = None,
    max_tokens_total: Annotated[int | None, typer.Option(min=1, help="Tokens that the LLM may use.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0.0, help="US dollars that the LLM may cost.")] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Show generators and verifiers with their parameters.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Make synthetic training rows: sampled, written or computed; verified, without repeats or benchmark items."""
    if list_all:
        _list(json_output)
        return
    if generator is None or target is None:
        raise InputError("name a generator and a target: --generator NAME --target NAME. `--list` shows generators.")
    from posttrain_crew.crews.runs import find_target
    from posttrain_crew.settings import Settings, cache_dir
    from posttrain_crew.tools.data.synthesis.chat import Allowance
    from posttrain_crew.tools.data.synthesis.litellm_complete import LiteLLMComplete
    from posttrain_crew.tools.data.synthesis.registry import find_generator, split_setting
    from posttrain_crew.tools.data.synthesis.run import JobConfig, carry_out
    from posttrain_crew.tools.sources import resolve_model

    found = find_target(target)
    params: dict[str, Any] = dict(split_setting(each) for each in param or [])
    if spec is not None:
        params["spec"] = spec
    folder = out or Path(f"synthetic-{generator.replace('_', '-')}-{seed}")
    plan = _plan(
        name=folder.resolve().name,
        generator=generator,
        params=params,
        verifiers=[_verifier(each) for each in verifier or []],
        rows=rows,
        seed=seed,
        difficulty=_difficulty(pass_rate, student_samples, params) if student else None,
        upsampling={"hard_weight": hard_weight, "max_repeats": max_repeats},
    )
    if model is not None and llm is not None and not any(each.name == "llm_judge" for each in plan.verifiers):
        raise InputError("give --model or --llm as the writer, not both (both only where `llm_judge` judges).")
    if model is None and llm is None and "model" in find_generator(generator).needs:
        raise InputError(f"`{generator}` needs a writer: --model (a folder or `builtin:NAME`) or --llm.")
    config = JobConfig.of(
        plan,
        found,
        folder,
        data=source,
        model=resolve_model(model, cache_dir(), _notice) if model else None,
        model_name=model or "",
        student=resolve_model(student, cache_dir(), _notice) if student else None,
        student_name=student or "",
        batch_size=found.evaluation.batch_size,
    )
    card = carry_out(
        config,
        llm=LiteLLMComplete(llm, Settings()) if llm else None,
        allowance=Allowance(tokens=max_tokens_total, usd=max_usd),
        notice=_notice,
    )
    if json_output:
        echo_json({"out": str(folder), **card.model_dump(mode="json")})
        return
    _show(card, folder)


def _plan(**fields: Any) -> Plan:
    from pydantic import ValidationError

    from posttrain_crew.tools.data.synthesis.plan import Plan

    try:
        return Plan.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise InputError(f"the synthesis cannot be planned: {problems}.") from error


def _verifier(text: str) -> dict[str, Any]:
    """`name` or `name:key=value,key=value`. A comma inside a value is kept: a part without `=` belongs to the last."""
    from posttrain_crew.tools.data.synthesis.registry import split_setting

    name, _, rest = text.partition(":")
    parts: list[str] = []
    for part in rest.split(",") if rest else []:
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += f",{part}"
    return {"name": name, "params": dict(split_setting(part) for part in parts)}


def _difficulty(bounds: str, samples: int, params: dict[str, Any]) -> dict[str, Any]:
    low, _, high = bounds.partition(":")
    try:
        wanted: dict[str, Any] = {"low": float(low), "high": float(high), "samples": samples}
    except ValueError as error:
        raise InputError(f"--pass-rate must be LOW:HIGH, for example 0.1:0.9; {bounds!r} was given.") from error
    return wanted | ({"max_tokens": params["max_tokens"]} if "max_tokens" in params else {})


def _list(as_json: bool) -> None:
    from posttrain_crew.tools.data.synthesis.registry import catalogue

    found = catalogue()
    if as_json:
        echo_json(found)
        return
    for kind in ("generators", "verifiers"):
        typer.echo(f"{kind}:")
        for each in found[kind]:
            needs = f" (needs {', '.join(each['needs'])})" if each.get("needs") else ""
            typer.echo(f"  {each['name']}: {each['summary']}{needs}")
            for field in each["parameters"]:
                typer.echo(f"      {field['name']} = {field['default']!s:<10} {field['description']}")


def _show(card: Card, folder: Path) -> None:
    typer.echo(f"{folder}: {card.rows} rows ({card.distinct} different), sha256 {card.sha256[:12]}")
    for stage, counts in card.counts.items():
        typer.echo(f"  {stage:<14} " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for role, line in card.usage.items():
        usd = "price not known" if line.usd is None else f"{line.usd:.4f} USD"
        typer.echo(f"  {role:<14} {line.model}: {line.requests} requests, {line.completion_tokens} new tokens, {usd}")
    for why, count in card.left_out.items():
        more = "; give more and repeat the call" if why == "budget" else ""
        typer.echo(f"  left out       {count} requests ({why}{more})")
    typer.echo(f"  next           crew audit {folder} --target {card.target}")


def _notice(message: str) -> None:
    typer.echo(message, file=sys.stderr)
