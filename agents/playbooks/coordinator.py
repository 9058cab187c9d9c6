"""The coordinator's playbook: baseline, research, data, experiments, ablation, widening, end.

Greedy from the best, wider on stagnation (after AIDE's draft / improve / debug, arXiv 2502.13138). Every move follows
from the brief alone: other scores, other data or a failed job lead to another plan. Names of datasets, experiments or
benchmarks appear nowhere in this file.
"""

from __future__ import annotations

from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCalls
from posttrain_crew.agents.playbooks.position import Idea, Position
from posttrain_crew.tasks.contracts import OrderDraft, Plan

__all__ = ["PATIENCE", "policy"]

PATIENCE = 2
"""Candidates without a promotion, after widening, that end the search."""
FIRST_WAVE = 2
"""Supervised experiments on different data before anything builds on the best of them."""
MOST_EPOCHS = 4
"""Repeating data up to four times is nearly as good as new data, and more is not (arXiv 2305.16264)."""
SLACK = 2.0
"""Time that an order may take, relative to what is expected: the trainer shortens what does not fit its order."""
REMEDIES_PER_CAUSE = 2
"""A remedy that failed twice is not tried a third time."""
OOM_RUNGS = 10


def policy(conversation: Conversation) -> ToolCalls | Final:
    """One plan for one brief."""
    return Final(_plan(Position(conversation.input["brief"])))


def _plan(at: Position) -> Plan:
    if at.brief["baseline"] is None:
        return _measure_base(at)
    orders = _advice(at) + _evaluations(at)
    asks = not at.recipes and not at.failed_twice("literature") and not at.orders_to("literature")[2:]
    if asks:
        orders.append(_order("literature", "Find recipes for what the base lacks.", 60, needs=at.needs, exclude=[]))
    # where data is looked for in the world, the recipes say where: it waits for them
    waits = asks and bool(at.brief.get("online"))
    if not waits and not any(order["ok"] for order in at.orders_to("data")) and not at.failed_twice("data"):
        orders.append(
            _order(
                "data",
                "Audit every candidate dataset and build the training sets that the recipes need.",
                180,
                inputs=[recipe["id"] for recipe in at.recipes[:5]],
                needs=at.needs,
                recipes=[recipe["id"] for recipe in at.recipes[:5]],
            )
        )
    if orders:
        return Plan(assessment=_assessment(at), orders=orders)
    if not at.brief["training_sets"]:
        return _finish(at, _why_no_data(at))
    if at.failed_twice("trainer") or at.failed_twice("evaluator"):
        return _finish(at, "work orders keep failing: " + at.brief["orders"][-1]["error"])
    return _experiments(at)


def _measure_base(at: Position) -> Plan:
    if at.failed_twice("evaluator"):
        return _finish(at, "the base could not be evaluated: " + at.orders_to("evaluator")[-1]["error"])
    sent = at.asked("evaluator")
    wanted = [0] + [k for k in (at.brief["few_shot_wanted"],) if k]
    orders = [
        _order(
            "evaluator", f"Measure the base on dev with {k} examples in the prompt.", 120, subject="base", few_shot=k
        )
        for k in wanted
        if {"subject": "base", "few_shot": k} not in sent
    ]
    return Plan(assessment="Nothing is known yet: measure the base first.", orders=orders[: at.brief["free_slots"]])


def _advice(at: Position) -> list[OrderDraft]:
    """Specialists that came with a plugin are asked once, with the stage that their role names."""
    return [
        _order(role["name"], f"Contribute what your role offers: {role['description']}", 120, needs=at.needs)
        for role in at.brief["roster"]
        if role.get("stage") == "advise" and not at.orders_to(role["name"])
    ]


def _evaluations(at: Position) -> list[OrderDraft]:
    waiting = [e["id"] for e in at.experiments if e["stage"] == "trained" and e["decision"] is None]
    asked = {parameters.get("subject") for parameters in at.asked("evaluator")}
    return [
        _order("evaluator", f"Evaluate {subject} on dev.", 90, inputs=[subject], subject=subject, few_shot=0)
        for subject in waiting
        if subject not in asked
    ][: at.brief["free_slots"]]


def _experiments(at: Position) -> Plan:
    goal = at.brief["target"]["goal"]
    reached = goal is not None and at.best != "base" and at.brief["best"]["scores"]["score"] >= goal
    ideas = _ablations(at) if reached else _remedies(at) + _first_wave(at) + _second_wave(at)
    if not reached:
        ideas += _ablations(at)
    fresh = [idea for idea in _distinct(ideas) if idea.key not in at.tried and at.affordable(idea)]
    if fresh:
        return _send(at, fresh)
    if at.undecided or at.brief["running"]:
        return Plan(assessment=_assessment(at) + " Waiting for the running jobs.")
    if reached:
        return _finish(at, f"the goal of {goal:.0%} on dev is reached.")
    if at.stagnation >= PATIENCE:
        return _finish(at, f"{at.stagnation} further experiments brought no significant gain.")
    if not at.widened:
        known = [recipe["id"] for recipe in at.recipes]
        return Plan(
            assessment=_assessment(at) + " No idea is left among the known recipes: widen the search.",
            orders=[_order("literature", "Find what helps on a plateau.", 60, needs=["plateau"], exclude=known)],
        )
    wider = [idea for idea in _distinct(_widening(at)) if idea.key not in at.tried and at.affordable(idea)]
    pairs = _pairs(at)
    if wider or pairs:
        plan = _send(at, wider)
        return plan.model_copy(update={"orders": [*plan.orders, *pairs]})
    return _finish(at, "no idea is left that is new and fits the time.")


def _send(at: Position, ideas: list[Idea]) -> Plan:
    chosen = ideas[: at.brief["free_slots"]]
    orders = [
        _order(
            "trainer",
            idea.hypothesis,
            SLACK * at.seconds(idea),
            inputs=[
                i
                for i in (idea.training_set, idea.recipe, idea.parent, idea.ablates, idea.remedies)
                if i and i != "base"
            ],
            **idea.parameters(),
        )
        for idea in chosen
    ]
    return Plan(assessment=_assessment(at), orders=orders)


def _first_wave(at: Position) -> list[Idea]:
    """Supervised runs from the base on the most promising sets: worked solutions before terse answers."""
    sets = at.sets("sft", "worked", "mixed") or at.sets("sft")
    return [
        Idea(
            "sft",
            s["id"],
            "base",
            f"The base fails the answer format and skips the working; imitating {s['rows']} {s['style']} answers from "
            f"{len(s['sources'])} dataset(s) should repair both.",
            recipe=at.recipe_for("sft", s["style"]),
        )
        for s in sets[:FIRST_WAVE]
    ]


def _second_wave(at: Position) -> list[Idea]:
    """What builds on the supervised candidates once all are decided, in the order in which its recipes are ranked."""
    if at.undecided:
        return []
    # pairs that were built on a plateau wait for their turn in the wider search, which fills all slots
    ideas = [*_reinforce(at), *([] if at.widened else _prefer(at))]
    return sorted(ideas, key=lambda idea: -at.prior(idea.recipe))


def _prefer(at: Position) -> list[Idea]:
    """Preference pairs from the best's supervised checkpoint, once in a run; they exist only where something asked for
    them."""
    parent = at.supervised(at.best)
    if parent is None or any(e["method"] == "dpo" and e["purpose"] == "candidate" for e in at.experiments):
        return []
    return [
        Idea(
            "dpo",
            s["id"],
            parent,
            f"{parent} has seen right answers alone: {s['rows']} pairs also show it what to avoid.",
            recipe=at.recipe_for("dpo"),
        )
        for s in at.sets("dpo")[:1]
    ]


def _pairs(at: Position) -> list[OrderDraft]:
    """An order for preference pairs, once, where a recipe asks for them and the audited data has none yet."""
    recipe = at.recipe_for("dpo")
    usable = [p["id"] for p in at.brief["profiles"] if p["verdict"] != "rejected"]
    asked = any("dpo" in order["parameters"].get("methods", []) for order in at.orders_to("data"))
    if recipe is None or asked or not usable or at.sets("dpo") or at.supervised(at.best) is None:
        return []
    objective = "Build preference pairs from what was audited already."
    return [_order("data", objective, 60, inputs=[*usable, recipe], methods=["dpo"], recipes=[recipe])]


def _reinforce(at: Position) -> list[Idea]:
    """Reinforcement from the best, which needs rewards that can fire."""
    if any(e["method"] == "grpo" for e in at.chain(at.best)):
        return []
    scores = at.brief["best"]["scores"]
    if scores is None or scores["score"] < 0.05:
        return []
    return [
        Idea(
            "grpo",
            s["id"],
            at.best,
            f"{at.best} answers {scores['score']:.0%} of dev: rewarding right answers should sharpen the rest.",
            recipe=at.recipe_for("grpo"),
        )
        for s in at.sets("grpo")[:1]
    ]


def _remedies(at: Position) -> list[Idea]:
    """A failed or sick experiment again, with the config change that its diagnosis names."""
    ideas: list[Idea] = []
    used: dict[str, int] = {}
    for e in at.experiments:
        if e["purpose"] == "remedy" and e["diagnosis"]:
            used[_ailment(e)] = used.get(_ailment(e), 0) + 1
    for e in at.experiments:
        diagnosis = e["diagnosis"]
        if e["stage"] not in ("failed", "decided") or e["decision"] == "promote" or not diagnosis:
            continue
        if not diagnosis["remedy"] or used.get(_ailment(e), 0) >= _most(_ailment(e)):
            continue
        ideas.append(
            Idea(
                e["method"],
                e["training_set"],
                e["parent"],
                f"{e['id']} showed {diagnosis['cause']}; the same with {diagnosis['remedy']} should not.",
                changes=at.changes_of(e["id"]) | diagnosis["remedy"],
                purpose="remedy",
                remedies=e["id"],
                recipe=e["recipe"],
            )
        )
    return ideas


def _ailment(experiment: dict[str, Any]) -> str:
    """What is counted: the diagnosis' cause, and want of memory apart from the other accidents of a machine."""
    oom = experiment.get("error_class") == "out_of_memory"
    return "out_of_memory" if oom else str(experiment["diagnosis"]["cause"])


def _most(cause: str) -> int:
    """Running out of memory has a ladder of remedies, each another one; elsewhere the remedy stays the same."""
    return OOM_RUNGS if cause == "out_of_memory" else REMEDIES_PER_CAUSE


def _ablations(at: Position) -> list[Idea]:
    """What made the best good? Leave one part of its history out. One such experiment is enough."""
    chain = at.chain(at.best)
    if not chain or at.ablated:
        return []
    ideas = []
    for node in chain:
        if node["method"] == "sft":
            ideas += [
                _without(at, node, s["id"], "base", "the worked solutions are replaced by bare answers")
                for s in at.sets("sft", "terse")
                if s["id"] != node["training_set"] and node["style"] != "terse"
            ]
            ideas += [
                _without(at, node, s["id"], "base", "its data is replaced by another set")
                for s in at.sets("sft", "worked", "mixed")
                if s["id"] != node["training_set"] and node["parent"] == "base"
            ]
        elif (below := at.by_id.get(node["parent"])) is not None and below["method"] == "dpo":
            ideas.append(
                _without(at, node, node["training_set"], below["parent"], "the preference stage before it is left out")
            )
        elif node["parent"] != "base":
            ideas.append(_without(at, node, node["training_set"], "base", "the supervised stage is left out"))
    halved = {"num_train_epochs": 0.5 * float(chain[-1]["config"].get("num_train_epochs", 1))}
    root = chain[-1]
    if root["method"] == "sft":
        ideas.append(_without(at, root, root["training_set"], "base", "half of the training is left out", halved))
    return [idea for idea in ideas if idea.key not in at.tried][:1]


def _without(
    at: Position,
    node: dict[str, Any],
    training_set: str,
    parent: str,
    part: str,
    changes: dict[str, Any] | None = None,
) -> Idea:
    return Idea(
        node["method"],
        training_set,
        parent,
        f"Ablation of {node['id']}: {part}. If the gain stays, that part was not the cause.",
        changes=at.changes_of(node["id"]) | (changes or {}),  # as the ablated one, but for the part
        purpose="ablation",
        ablates=node["id"],
        recipe=node["recipe"],
    )


def _widening(at: Position) -> list[Idea]:
    """Away from the best in one direction at a time: other data on top, longer, faster or slower learning."""
    chain = at.chain(at.best)
    if not chain:
        return [
            Idea("sft", s["id"], "base", "Every other set, since the first brought nothing.") for s in at.sets("sft")
        ]
    ideas = _prefer(at)
    # the rates of preference pairs, near a reference model, are no measure for other methods
    node = next((e for e in chain if e["method"] != "dpo"), chain[0])
    rate = float(node["config"].get("learning_rate", 1e-5))
    used = {e["training_set"] for e in chain}
    if node["method"] == "grpo" and node["config"].get("max_steps"):
        steps = int(node["config"]["max_steps"])
        ideas.append(
            Idea(
                "grpo",
                node["training_set"],
                at.best,
                "Reward may still rise: go on from the best with half the learning rate.",
                changes={"learning_rate": rate / 2, "max_steps": steps},
            )
        )
    for s in at.sets("sft", "worked", "mixed"):
        if s["id"] not in used:
            hypothesis = "Worked solutions that the best has not seen, on top of it, at half the learning rate."
            ideas.append(Idea("sft", s["id"], at.best, hypothesis, changes={"learning_rate": rate / 2}))
    root = chain[-1]
    epochs = float(root["config"].get("num_train_epochs", 1))
    root_rate = float(root["config"].get("learning_rate", 1e-5))
    if root["method"] == "sft":
        if 2 * epochs <= MOST_EPOCHS:
            ideas.append(
                Idea(
                    "sft",
                    root["training_set"],
                    "base",
                    "The supervised stage may have been too short: twice the epochs.",
                    changes={"num_train_epochs": 2 * epochs},
                    cost_factor=2.0,
                )
            )
        ideas.append(
            Idea("sft", root["training_set"], "base", "Faster learning.", changes={"learning_rate": 2 * root_rate})
        )
    for s in at.sets("grpo"):
        ideas.append(Idea("grpo", s["id"], at.best, "Reinforcement from the best.", recipe=at.recipe_for("grpo")))
    return ideas


def _distinct(ideas: list[Idea]) -> list[Idea]:
    return list({idea.key: idea for idea in reversed(ideas)}.values())[::-1]


def _finish(at: Position, reason: str) -> Plan:
    return Plan(assessment=_assessment(at), finish=True, finish_reason=reason)


def _why_no_data(at: Position) -> str:
    reasons = "; ".join(f"{p['dataset']}: {p['reason']}" for p in at.brief["profiles"] if p["verdict"] == "rejected")
    return f"no training set could be built. {reasons or 'No candidate dataset was found or audited.'}"[:1500]


def _assessment(at: Position) -> str:
    base, best = at.brief["baseline"], at.brief["best"]
    if base is None:
        return "The base has not been measured."
    text = (
        f"Base {base['score']:.1%} strict, {base['lenient_score']:.1%} lenient, format valid "
        f"{base['format_valid_rate']:.1%}: needs {', '.join(at.needs)}."
    )
    if best["scores"] and best["subject"] != "base":
        text += f" Best is {best['subject']} with {best['scores']['score']:.1%}."
    return text + f" {len(at.experiments)} experiments so far, {at.stagnation} since the last promotion."


def _order(
    specialist: str, objective: str, budget_seconds: float, *, inputs: list[str] | None = None, **parameters: Any
) -> OrderDraft:
    return OrderDraft(
        specialist=specialist,
        objective=objective,
        inputs=inputs or [],
        parameters=parameters,
        budget_seconds=max(1.0, budget_seconds),
    )
