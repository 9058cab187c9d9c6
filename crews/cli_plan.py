"""`crew plan`: whether a training fits given GPUs, with which settings, how long a step takes, and how to start it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from posttrain_crew.crews.cli_common import JsonFlag, console, echo_json
from posttrain_crew.errors import ConfigError, InputError

if TYPE_CHECKING:
    from posttrain_crew.entries import Method
    from posttrain_crew.tools.training.planner import Plan

__all__ = ["register"]

NO_FIT = 2
RANK = 16


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(plan)


def plan(
    model: Annotated[str | None, typer.Option(help="`qwen3-1.7b`, another known model, or a model folder.")] = None,
    method: Annotated[str, typer.Option(help="sft, dpo or grpo.")] = "sft",
    lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA adapter.")] = False,
    qlora: Annotated[bool, typer.Option("--qlora", help="Train a LoRA adapter on weights in 4 bits.")] = False,
    gpu: Annotated[str, typer.Option(help="a100-40, a100-80, h100, h200, b200, l40s, cpu; or `8xh100`.")] = "h100",
    gpus: Annotated[int | None, typer.Option(help="GPUs of a machine.")] = None,
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    tokens: Annotated[int | None, typer.Option(help="Of the longest row, or for grpo of the longest prompt.")] = None,
    completion: Annotated[int | None, typer.Option(help="grpo: most tokens that are sampled for one row.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows, pairs or completions of an optimizer step, in all.")] = None,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA adapter, on all linear layers.")] = RANK,
    sampling: Annotated[str, typer.Option(help="grpo: colocate, server or plain.")] = "colocate",
    sharding: Annotated[str | None, typer.Option(help="Use this profile (zero2, zero3, fsdp, ...).")] = None,
    table: Annotated[bool, typer.Option("--table", help="All known models, methods and machines.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Does a training fit? Gigabytes by part, time of a step, settings, and the command that starts it.

    Method, lengths, adapter and effective batch are kept; micro-batch, accumulation, checkpointing, sharding and
    offload are chosen. Exit 2 where nothing fits, with the reason and the nearest machine that does.
    """
    if table:
        _table(json_output)
        return
    if model is None:
        raise InputError("name a model (`--model qwen3-1.7b` or a folder), or ask for the whole `--table`.")
    if method not in ("sft", "dpo", "grpo"):
        raise ConfigError(f"`{method}` is no method: choose sft, dpo or grpo.")
    if sampling not in ("colocate", "server", "plain"):
        raise ConfigError(f"`{sampling}` is no way of sampling: choose colocate, server or plain.")
    if lora and qlora:
        raise ConfigError("`--lora` and `--qlora` exclude each other: choose one.")
    if method != "grpo" and (completion is not None or sampling != "colocate"):
        raise ConfigError("`--completion` and `--sampling` are about grpo: leave them out, or give `--method grpo`.")
    if rank != RANK and not (lora or qlora):
        raise ConfigError("`--rank` is an adapter's: give `--lora` or `--qlora` with it.")
    from posttrain_crew.tools.training.hardware import find_cluster
    from posttrain_crew.tools.training.planner import plan as planned
    from posttrain_crew.tools.training.planner import usual_request
    from posttrain_crew.tools.training.shape import find_shape

    given = {"tokens": tokens, "completion": completion, "batch": batch}
    for name, value in {**given, "rank": rank}.items():
        if value is not None and value < (0 if name == "completion" else 1):
            raise ConfigError(f"`--{name}` must be at least 1, but is {value}.")
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    cluster = find_cluster(gpu, gpus, nodes)
    if cluster.device.on_cpu and sampling == "colocate":
        sampling = "plain"
    adapter = "qlora" if qlora else "lora" if lora else "full"
    if cluster.device.on_cpu and qlora:
        raise ConfigError("QLoRA needs a CUDA device: choose another `--gpu`, or `--lora`.")
    request = usual_request(
        find_shape(model),
        cast("Method", method),
        cluster,
        adapter,
        **changes,
        rank=rank,
        sampling=sampling,
        only=sharding,
    )
    found = planned(request)
    answer = _answer(found)
    if json_output:
        echo_json({"model": model, **answer})
    else:
        _show(model, found, answer)
    if found.best is None:
        raise typer.Exit(NO_FIT)


def _answer(found: Plan) -> dict[str, Any]:
    from posttrain_crew.tools.training.launcher import Launch
    from posttrain_crew.tools.training.memory import GIB

    request, best = found.request, found.best
    shown = best or found.leanest
    answer: dict[str, Any] = {
        "parameters": request.shape.parameters,
        "method": request.method,
        "adapter": request.adapter,
        "machine": request.cluster.title,
        "effective_batch": request.batch,
        "fits": best is not None,
        "why": found.why,
        "nearest": found.nearest or None,
    }
    if shown is None:
        return answer
    time = shown.time
    answer |= {
        "gib": round(shown.memory.gib, 2),
        "device_gib": request.cluster.device.memory_gib,
        "host_gib": round(shown.host_gib, 1),
        "moment": shown.memory.moment,
        "parts": [
            {"name": p.name, "gib": round(p.bytes / GIB, 3), "formula": p.formula, "source": p.source}
            for p in shown.memory.parts
        ],
        "step_s": round(time.total, 3),
        "step_parts_s": {
            name: round(getattr(time, name), 3) for name in ("compute", "communication", "optimizer", "sampling")
        },
        "tokens_per_s": round(time.tokens / time.total, 1),
        "settings": shown.told(),
        "job": shown.job(),
        "trainer": shown.trainer(),
        "sharding": shown.sharding.name,
    }
    if best is not None:
        cluster = request.cluster
        launch = Launch(
            request.method, best.sharding.name, cluster.gpus, cluster.nodes, best.work.bf16, cluster.device.on_cpu
        )
        answer["environment"] = launch.environment()
        answer["launch"] = {"torchrun": launch.torchrun(), "accelerate": launch.accelerate()}
        if cluster.nodes == 1:
            devices = f" --devices {cluster.gpus}" if cluster.gpus > 1 else ""
            sharding = f" --sharding {best.sharding.name}" if best.sharding.name != "single" else ""
            answer["launch"]["crew"] = f"crew train config.yaml{devices}{sharding}"
    return answer


def _show(model: str, found: Plan, answer: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{model}, {answer['method']} ({answer['adapter']}), on {answer['machine']}"
    typer.echo(f"{title}: {'fits' if answer['fits'] else 'does not fit'}")
    if "parts" in answer:
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("part", "GiB", "formula", "source"):
            shown.add_column(name, justify="right" if name == "GiB" else "left", overflow="fold")
        for part in answer["parts"]:
            shown.add_row(part["name"], f"{part['gib']:.2f}", part["formula"], part["source"])
        console().print(shown)
        hosted = f", and {answer['host_gib']:.0f} GiB of main memory for each GPU" if answer["host_gib"] >= 1 else ""
        typer.echo(
            f"{answer['gib']:.1f} of {answer['device_gib']:g} GiB on each device at the {answer['moment']}{hosted}."
        )
    if found.best is None:
        typer.echo(f"Why: {found.why}.\nNearest that fits: {found.nearest}.")
        return
    typer.echo(f"A step takes about {answer['step_s']:.2f} s ({answer['tokens_per_s']:.0f} tokens/s); {found.why}.")
    import yaml

    typer.echo("Settings (in the job's config):")
    typer.echo(yaml.safe_dump({**answer["job"], "trainer": answer["trainer"]}, sort_keys=False).rstrip())
    typer.echo(f"Start:\n{answer['launch'].get('crew', answer['launch']['torchrun'])}")


def _table(json_output: bool) -> None:
    from posttrain_crew.tools.training.plan_table import table

    rows = [row.as_dict() for row in table()]
    if json_output:
        echo_json({"rows": rows})
        return
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("model", "method", "machine", "GiB", "s/step", "settings"):
        shown.add_column(name, overflow="fold", justify="right" if name in ("GiB", "s/step") else "left")
    for row in rows:
        numbers = (f"{row['gib']}", f"{row['step_s']}", str(row["settings"]))
        last = numbers if row["fits"] else ("no", "", f"nearest: {row['nearest']}")
        shown.add_row(str(row["model"]), str(row["method"]), str(row["cluster"]), *last)
    console().print(shown)
