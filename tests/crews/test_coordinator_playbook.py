"""The coordinator's playbook: other boards lead to other plans."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from posttrain_crew.agents.playbooks.conversation import Conversation, Final
from posttrain_crew.agents.playbooks.coordinator import policy
from posttrain_crew.tasks.contracts import Plan


def scores(score: float, lenient: float | None = None, valid: float = 1.0) -> dict[str, Any]:
    return {
        "id": "eval-1",
        "split": "dev",
        "n": 600,
        "few_shot": 0,
        "score": score,
        "ci_low": score - 0.02,
        "ci_high": score + 0.02,
        "lenient_score": lenient if lenient is not None else score,
        "format_valid_rate": valid,
        "accuracy_given_valid": score / valid if valid else None,
        "truncated_rate": 0.0,
    }


def empty_brief() -> dict[str, Any]:
    return {
        "target": {
            "name": "t",
            "title": "T",
            "goal": None,
            "domains": [],
            "answer": {"kind": "choice", "labels": "ABCD"},
        },
        "base_model": "m",
        "seed": 0,
        "baseline": None,
        "few_shot_reference": None,
        "few_shot_wanted": 3,
        "best": {"subject": "base", "scores": None},
        "experiments": [],
        "experiments_left_out": 0,
        "recipes": [],
        "profiles": [],
        "training_sets": [],
        "running": [],
        "free_slots": 2,
        "orders": [],
        "incidents": [],
        "budget": {
            "hours": 1,
            "elapsed_s": 0,
            "for_experiments_s": 3000,
            "typical_seconds": {"sft": 40, "grpo": 100, "evaluation": 15},
        },
        "roster": [],
        "refusals": [],
    }


def researched() -> dict[str, Any]:
    """A board with a baseline, recipes and four training sets."""
    brief = empty_brief()
    base = scores(0.12, lenient=0.6, valid=0.3)
    brief |= {
        "baseline": base,
        "best": {"subject": "base", "scores": base},
        "recipes": [
            recipe("rec-1", "sft", "worked", 0.9),
            recipe("rec-2", "grpo", "verifiable-prompts", 0.8),
        ],
        "profiles": [
            {"id": "prof-1", "dataset": "a", "verdict": "usable", "reason": "", "answer_style": "worked", "rows": 9}
        ],
        "training_sets": [
            training_set("ts-1", "sft", "worked", ["a"]),
            training_set("ts-2", "sft", "worked", ["a", "b"]),
            training_set("ts-3", "sft", "terse", ["c"]),
            training_set("ts-4", "grpo", "verifiable-prompts", ["a"]),
        ],
    }
    brief["orders"] = [{"id": "wo-d", "specialist": "data", "parameters": {}, "done": True, "ok": True, "error": ""}]
    return brief


def recipe(name: str, method: str, style: str, prior: float) -> dict[str, Any]:
    return {
        "id": name,
        "method": method,
        "title": name,
        "data_style": style,
        "addresses": ["format"],
        "arxiv_ids": ["2402.03300"],
        "prior": prior,
    }


def training_set(name: str, method: str, style: str, sources: list[str]) -> dict[str, Any]:
    return {"id": name, "method": method, "style": style, "rows": 1000, "sources": sources}


def experiment(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "parent": "base",
        "method": "sft",
        "training_set": "ts-1",
        "style": "worked",
        "recipe": "rec-1",
        "purpose": "candidate",
        "ablates": None,
        "config": {"learning_rate": 1e-3, "num_train_epochs": 2},
        "stage": "decided",
        "error_class": None,
        "wall_s": 30.0,
        "diagnosis": None,
        "scores": scores(0.85),
        "comparison": None,
        "decision": "promote",
    } | changes


def trained(brief: dict[str, Any], *experiments: dict[str, Any], best: str, score: float = 0.85) -> dict[str, Any]:
    """The brief after some experiments, with the orders that led to them."""
    brief = copy.deepcopy(brief)
    brief["experiments"] = list(experiments)
    brief["best"] = {"subject": best, "scores": scores(score)}
    for number, e in enumerate(experiments):
        parameters = {"method": e["method"], "training_set": e["training_set"], "parent": e["parent"], "changes": {}}
        order = {"id": f"wo-{number}", "specialist": "trainer", "parameters": parameters}
        brief["orders"].append(order | {"done": True, "ok": True, "error": ""})
        order = {"id": f"wo-e{number}", "specialist": "evaluator", "parameters": {"subject": e["id"]}}
        brief["orders"].append(order | {"done": True, "ok": True, "error": ""})
    return brief


def plan(brief: dict[str, Any]) -> Plan:
    move = policy(Conversation({"specialist": "coordinator", "brief": brief}, frozenset()))
    assert isinstance(move, Final)
    assert isinstance(move.model, Plan)
    return move.model


def test_measures_the_base_before_anything_else() -> None:
    orders = plan(empty_brief()).orders
    assert [(o.specialist, o.parameters["few_shot"]) for o in orders] == [("evaluator", 0), ("evaluator", 3)]


def test_needs_follow_from_the_baseline() -> None:
    brief = empty_brief() | {"baseline": scores(0.12, lenient=0.6, valid=0.3)}
    orders = {o.specialist: o for o in plan(brief).orders}
    assert orders["literature"].parameters["needs"] == ["format", "reasoning"]
    brief = empty_brief() | {"baseline": scores(0.3, lenient=0.3, valid=1.0)}
    orders = {o.specialist: o for o in plan(brief).orders}
    assert orders["literature"].parameters["needs"] == ["reasoning", "knowledge"]


def test_first_wave_prefers_worked_solutions_and_fills_the_slots() -> None:
    orders = plan(researched()).orders
    assert [o.parameters["training_set"] for o in orders] == ["ts-1", "ts-2"]
    assert all(o.parameters["parent"] == "base" and o.parameters["method"] == "sft" for o in orders)
    narrow = researched() | {"free_slots": 1}
    assert len(plan(narrow).orders) == 1


def test_terse_data_is_used_when_there_is_nothing_better() -> None:
    brief = researched()
    brief["training_sets"] = [training_set("ts-3", "sft", "terse", ["c"])]
    assert [o.parameters["training_set"] for o in plan(brief).orders] == ["ts-3"]


def test_builds_on_the_best_and_ablates_it() -> None:
    brief = trained(
        researched(),
        experiment("exp-1"),
        experiment("exp-2", training_set="ts-2", decision="discard"),
        best="exp-1",
    )
    orders = plan(brief).orders
    assert (orders[0].parameters["method"], orders[0].parameters["parent"]) == ("grpo", "exp-1")
    assert (orders[1].parameters["purpose"], orders[1].parameters["ablates"]) == ("ablation", "exp-1")
    assert orders[1].parameters["training_set"] == "ts-3"


def test_trained_experiments_are_evaluated() -> None:
    brief = trained(researched(), experiment("exp-1", stage="trained", scores=None, decision=None), best="base")
    brief["orders"] = [o for o in brief["orders"] if o["specialist"] == "trainer"]
    orders = plan(brief).orders
    assert (orders[0].specialist, orders[0].parameters["subject"]) == ("evaluator", "exp-1")


def test_a_diagnosed_failure_is_tried_again_with_its_remedy_but_not_for_ever() -> None:
    sick = {"cause": "divergence", "remedy": {"learning_rate": 1e-4}}
    failed = experiment("exp-1", stage="decided", decision="abandon", scores=None, diagnosis=sick)
    orders = plan(trained(researched(), failed, best="base")).orders
    assert orders[0].parameters["changes"] == {"learning_rate": 1e-4}
    assert orders[0].parameters["purpose"] == "remedy"
    assert "exp-1" in orders[0].inputs  # so that the board shows which failure it follows
    again = [experiment(f"exp-{n}", purpose="remedy", decision="abandon", scores=None, diagnosis=sick) for n in (2, 3)]
    later = plan(trained(researched(), failed, *again, best="base")).orders
    assert all(o.parameters.get("purpose") != "remedy" for o in later)


def test_a_job_out_of_memory_climbs_its_ladder_further_than_another_remedy_is_tried() -> None:
    def out(number: int, micro: int, **fields: Any) -> dict[str, Any]:
        sick = {"cause": "infrastructure", "remedy": {"per_device_train_batch_size": micro}}
        fields |= {"decision": "abandon", "scores": None, "diagnosis": sick, "error_class": "out_of_memory"}
        return experiment(f"exp-{number}", **fields)

    tried = [out(1, 32), *(out(number, 32 >> (number - 1), purpose="remedy") for number in (2, 3, 4))]
    orders = plan(trained(researched(), *tried, best="base")).orders
    remedies = [order.parameters["changes"] for order in orders if order.parameters.get("purpose") == "remedy"]
    assert remedies, "three rungs are not the end"


def test_nothing_that_does_not_fit_the_time_is_ordered() -> None:
    brief = researched()
    brief["budget"]["for_experiments_s"] = 30
    result = plan(brief)
    assert not [o for o in result.orders if o.specialist == "trainer"]


def test_goal_reached_leaves_only_the_ablation() -> None:
    brief = researched()
    brief["target"]["goal"] = 0.8
    after = trained(brief, experiment("exp-1"), best="exp-1")
    orders = plan(after).orders
    assert [o.parameters["purpose"] for o in orders] == ["ablation"]
    ablation = experiment(
        "exp-2", training_set="ts-3", purpose="ablation", ablates="exp-1", decision="keep_as_ablation"
    )
    done = plan(trained(brief, experiment("exp-1"), ablation, best="exp-1"))
    assert done.finish
    assert "goal" in done.finish_reason


def with_pairs(prior: float) -> dict[str, Any]:
    """A board whose data order had a recipe for preference pairs among its own."""
    brief = researched()
    brief["recipes"].append(recipe("rec-3", "dpo", "preference", prior))
    brief["training_sets"].append(training_set("ts-5", "dpo", "preference", ["a"]))
    return brief


def told(brief: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What a plan orders of the trainer."""
    orders = [o.parameters for o in plan(brief).orders if o.specialist == "trainer"]
    return [(p["method"], p["training_set"], p["parent"]) for p in orders]


SUPERVISED = experiment("exp-1"), experiment("exp-2", training_set="ts-2", decision="discard")


@pytest.mark.parametrize(("prior", "order"), [(0.9, ["dpo", "grpo"]), (0.3, ["grpo", "dpo"])])
def test_pairs_build_on_the_best_supervised_checkpoint_in_the_order_of_the_recipes(
    prior: float, order: list[str]
) -> None:
    brief = with_pairs(prior)
    assert {method for method, _, _ in told(brief)} == {"sft"}, "supervised candidates come first"
    under_way = trained(brief, SUPERVISED[0], SUPERVISED[1] | {"stage": "evaluated", "decision": None}, best="exp-1")
    assert not {"dpo", "grpo"} & {method for method, _, _ in told(under_way)}
    sent = told(trained(brief, *SUPERVISED, best="exp-1"))
    assert [method for method, _, _ in sent] == order
    assert ("dpo", "ts-5", "exp-1") in sent
    orders = plan(trained(brief, *SUPERVISED, best="exp-1")).orders
    assert next(o.parameters["recipe"] for o in orders if o.parameters["method"] == "dpo") == "rec-3"


def test_pairs_are_tried_once_and_from_the_supervised_stage() -> None:
    reinforced = experiment("exp-3", method="grpo", training_set="ts-4", parent="exp-1", style="verifiable-prompts")
    brief = trained(with_pairs(0.3), *SUPERVISED, reinforced, best="exp-3")
    assert ("dpo", "ts-5", "exp-1") in told(brief)
    pairs = experiment("exp-4", method="dpo", training_set="ts-5", parent="exp-1", decision="discard")
    later = trained(with_pairs(0.3), *SUPERVISED, reinforced, pairs, best="exp-3")
    assert "dpo" not in {method for method, _, _ in told(later)}


def test_reinforcement_goes_on_from_pairs_that_helped_and_they_are_ablated() -> None:
    pairs = experiment("exp-3", method="dpo", training_set="ts-5", parent="exp-1", style="preference")
    brief = trained(with_pairs(0.9), *SUPERVISED, pairs, best="exp-3")
    assert told(brief) == [("grpo", "ts-4", "exp-3"), ("dpo", "ts-5", "base")]
    assert plan(brief).orders[1].parameters["ablates"] == "exp-3"
    reinforced = experiment("exp-4", method="grpo", training_set="ts-4", parent="exp-3", style="verifiable-prompts")
    brief = trained(with_pairs(0.9), *SUPERVISED, pairs, reinforced, best="exp-4")
    assert told(brief) == [("grpo", "ts-4", "exp-1")], "the preference stage is what is left out"


def test_pairs_that_nobody_made_yet_are_ordered_when_the_search_widens() -> None:
    stuck = [
        *SUPERVISED,
        experiment("exp-3", method="grpo", training_set="ts-4", parent="exp-1", decision="abandon"),
        experiment("exp-4", training_set="ts-3", purpose="ablation", ablates="exp-1", decision="keep_as_ablation"),
    ]
    brief = trained(researched(), *stuck, best="exp-1")
    asked = {"id": "wo-9", "specialist": "literature", "parameters": {"needs": ["plateau"]}}
    brief["orders"].append(asked | {"done": True, "ok": True, "error": ""})
    before = plan(brief).orders
    assert "data" not in {o.specialist for o in before}, "no recipe asks for pairs"

    brief["recipes"].append(recipe("rec-3", "dpo", "preference", 0.9))
    orders = plan(brief).orders
    assert [o.parameters for o in orders[:-1]] == [o.parameters for o in before], "nothing else changes"
    assert (orders[-1].specialist, orders[-1].parameters["methods"]) == ("data", ["dpo"])
    assert orders[-1].inputs == ["prof-1", "rec-3"]

    order = {"id": "wo-10", "specialist": "data", "parameters": orders[-1].parameters, "done": True, "ok": True}
    brief["orders"].append(order | {"error": ""})
    assert [o.specialist for o in plan(brief).orders] == ["trainer", "trainer"], "asked once, also when none came"
    brief["training_sets"].append(training_set("ts-5", "dpo", "preference", ["a"]))
    assert told(brief)[0] == ("dpo", "ts-5", "exp-1")
    assert len(told(brief)) == 2, "the other slot is not left idle"


def test_the_rate_of_pairs_is_no_measure_for_what_comes_after() -> None:
    stuck = [
        *SUPERVISED,
        experiment("exp-3", method="dpo", training_set="ts-5", parent="exp-1", config={"learning_rate": 1e-6}),
        experiment("exp-4", method="grpo", training_set="ts-4", parent="exp-3", decision="discard"),
        experiment("exp-5", training_set="ts-5", purpose="ablation", ablates="exp-3", decision="keep_as_ablation"),
    ]
    brief = trained(with_pairs(0.9), *stuck, best="exp-3")
    asked = {"id": "wo-9", "specialist": "literature", "parameters": {"needs": ["plateau"]}}
    brief["orders"].append(asked | {"done": True, "ok": True, "error": ""})
    orders = plan(brief).orders
    assert orders[0].parameters["parent"] == "exp-3"
    assert orders[0].parameters["changes"] == {"learning_rate": 5e-4}


def test_widens_on_stagnation_and_then_ends() -> None:
    brief = trained(
        researched(),
        experiment("exp-1"),
        experiment("exp-2", training_set="ts-2", decision="discard"),
        experiment("exp-3", method="grpo", training_set="ts-4", parent="exp-1", decision="discard"),
        experiment("exp-4", training_set="ts-3", purpose="ablation", ablates="exp-1", decision="keep_as_ablation"),
        best="exp-1",
    )
    assert plan(brief).finish
    brief["experiments"][1]["decision"] = "abandon"
    assert [o.specialist for o in plan(brief).orders] == ["literature"]
    brief["orders"].append(
        {
            "id": "wo-9",
            "specialist": "literature",
            "parameters": {"needs": ["plateau"]},
            "done": True,
            "ok": True,
            "error": "",
        }
    )
    assert plan(brief).orders[0].specialist == "trainer"


def test_says_why_when_every_dataset_was_rejected() -> None:
    brief = researched()
    brief["training_sets"] = []
    brief["profiles"][0] |= {"verdict": "rejected", "reason": "labels agree with the base no better than chance (0.26)"}
    result = plan(brief)
    assert result.finish
    assert "0.26" in result.finish_reason


def test_waits_for_running_jobs() -> None:
    brief = trained(researched(), experiment("exp-1", stage="training", scores=None, decision=None), best="base")
    brief |= {"free_slots": 0, "running": [{"label": "exp-1", "role": "train", "subject": "exp-1"}]}
    result = plan(brief)
    assert not result.orders
    assert not result.finish


@pytest.mark.parametrize("specialist", ["literature", "data"])
def test_a_specialist_that_keeps_failing_is_not_asked_for_ever(specialist: str) -> None:
    brief = empty_brief() | {"baseline": scores(0.12, lenient=0.6, valid=0.3)}
    failed = {"specialist": specialist, "parameters": {}, "done": True, "ok": False, "error": "it broke"}
    brief["orders"] = [failed | {"id": "wo-1"}, failed | {"id": "wo-2"}]
    assert specialist not in {o.specialist for o in plan(brief).orders}


def test_plugin_specialists_are_asked_once() -> None:
    brief = researched()
    brief["roster"] = [{"name": "safety", "description": "reviews safety", "stage": "advise"}]
    orders = plan(brief).orders
    assert orders[0].specialist == "safety"
    brief["orders"].append(
        {"id": "wo-1", "specialist": "safety", "parameters": {}, "done": True, "ok": True, "error": ""}
    )
    assert "safety" not in {o.specialist for o in plan(brief).orders}
