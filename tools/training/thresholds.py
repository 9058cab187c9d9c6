"""The numbers that the watch rules compare with, in one place, each with its reason.

"Histories" are the runs under tests/training/histories with a rule seed (0-99): real trainings of the embedded model,
well and badly. A number without another source was set on them, so that each failing one is told and no healthy one is.
They are tiny models on short answers: the shapes of a failure carry over to large models, a level may not.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["THRESHOLDS", "Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """Levels and windows. A window counts logs, which is steps where `logging_steps` is 1."""

    window: int = 4
    """Logs that have to agree before a noisy metric counts."""
    lasting: int = 8
    """Logs after which a state that alone need not be fatal counts as one that lasts."""

    loss_factor: float = 1.5
    loss_margin: float = 0.5
    """Divergence: losses above factor x start + margin (nats) for `loss_steps`. Healthy losses stay under their start
    but for the noise of a batch; the margin keeps a start near 0 from alarming."""
    loss_far: float = 3.0
    """... or three logs above this factor x start + margin: no warm-up does that and comes back."""
    loss_steps: int = 10
    """Steps that a spike in warm-up, or a stretch of hard rows, may last."""
    loss_rows: int = 24
    """Rows that must agree in any case: the loss of one row in a row tells of the row."""

    loss_noise: float = 3.0
    """A warning: the loss is above its best three logs by the margin, and by so many times the noise of a log."""

    overfit_warn: float = 1.15
    overfit_stop: float = 1.5
    """Held-out loss over its best. A noisy held-out set of 64 rows moves by under 5 % in healthy histories."""
    overfit_evals: int = 4
    """Evaluations in a row above the first level that end the job too: none of the histories came back from there."""
    overfit_answers: float = 0.005
    """Either ends it only if held-out answers (token accuracy, DPO's preferences) got worse by this share. In the
    second epoch the held-out loss of large models rises, and what they answer often gets better still
    (arXiv:2203.02155, arXiv:2310.16944)."""
    overfit_alone: float = 2.0
    """Held-out loss over its best that ends SFT anyway, and DPO where no such accuracy is logged."""

    collapse_ratio: float = 0.5
    """Reward collapse: the mean of a window under this share of the best one ..."""
    collapse_errors: float = 4.0
    """... and lower by so many standard errors, more where more has been looked at: a batch of four completions may
    halve its reward by chance, and in 500 logs of eight prompts each chance does a good deal more."""
    died_warn: float = 8.0
    died_stop: float = 14.0
    """... or dead: so little likely (-ln p) that all groups score the same for so long by chance. 14 is one in a
    million, which a log of the number of looks is added to."""
    died_errors: float = 2.0
    """... at a reward under half of the start's, or lower than it by so many standard errors: groups that have settled
    because all is learnt score no less than at first."""

    same_all: float = 0.98
    same_most: float = 0.8
    same_sure: float = 0.9
    """Share of groups without variance (`frac_reward_zero_std`): all but none; so many that little is learnt; so many,
    from the start, that the job ends where sampling was cold. Hard and easy questions alike give 0.8 to 0.95 to runs
    that learn all the same, slowly: those are warned of and left to go on."""
    cold: float = 0.5
    """A sampling temperature under this explains groups that score the same, and is easily put right."""
    never_fires: float = 0.01
    """A mean reward that never exceeded this has not fired."""
    never_prompts: int = 128
    """Prompts without a single difference that end the job: by then, with 99 % confidence, fewer than 4 % of the
    prompts give any (1 - 0.01^(1/128)). R1-Zero runs begin with a few per cent and take off later."""
    same_least: int = 20
    """Prompts before anything is said: those of a few steps may all be too easy or too hard."""
    same_prompts: int = 64
    """... and where the reward is not 0 but the same for all."""

    length_factor: float = 2.0
    length_cut: float = 0.4
    length_cut_stop: float = 0.5
    length_start_cut: float = 0.2
    """Length explosion: mean length over its start, and the share that runs into the limit
    (`completions/clipped_ratio`) at the end and at the start. A base that learns to show its work may well double in
    length, but does not run into the limit."""
    length_gain: float = 0.1
    """A reward that rose by more than this while completions were cut pays for something else than the answer ..."""
    length_paid: float = 0.6
    """... which is length itself, where the changes of length from log to log explain this share of the variance of the
    reward's: both rise together in every run that learns to think longer, but their noise is then apart."""
    length_unearned: float = 0.1
    """... or is another deceit: the mean reward exceeds by this what the completions that do end can have earned."""

    unended: float = 0.8
    unended_stop: float = 0.95
    """Never ends: share of completions that run into the limit, from the first log on."""
    unended_completions: int = 256
    """Completions of which not one ended, which end the job although it is rewarded."""

    hack_drop: float = 0.1
    hack_errors: float = 3.4
    """Reward hacking: the watched reward is lower than at the start by this much (share of right answers) and by so
    many standard errors, while the training reward rose."""
    hack_errors_alone: float = 4.5
    hack_agrees: float = 0.03
    """... where held-out answers have fallen too, by this much; more, where only the training prompts tell of it: a few
    prompts a step wander by half of their level."""
    hack_errors_both: float = 2.8
    hack_errors_agree: float = 2.0
    """... fewer on held-out questions, where right answers to the training prompts have fallen by so many."""
    hack_rise: float = 0.05
    """Rise of the training reward, relative to its range so far."""

    entropy_share: float = 0.2
    entropy_floor: float = 0.1
    """Entropy collapse: entropy under this share of its start, where it began above the floor (nats per token;
    a policy that begins below it was collapsed, or sampled too coldly, before). At
    the end of healthy histories it is 0.46 of the start or more; Cui et al. 2025 (arXiv:2505.22617) report that reward
    stops rising as entropy goes to 0."""
    entropy_dead: float = 0.02
    """Entropy (nats per token) under which sampling is deterministic in effect. Only this ends a job: healthy runs of
    large models go from 0.6 to 0.05 while the reward climbs by less than its noise shows."""
    entropy_lasting: int = 6
    """Logs under it that end the job."""
    entropy_gain: float = 0.05
    """A reward that rose by more than this is what the entropy was spent on."""

    kl: float = 1.5
    """KL divergence from the reference, nats per token. Healthy histories reach 0.62 at most, usual runs of large
    models stay far below; those that left their reference go to 4 and beyond."""
    kl_lasting: int = 8
    """Logs above it that end the job."""
    kl_reward: float = 0.7
    """A mean reward under this share of its best is about to collapse, which is the plainer cause."""

    plateau_logs: int = 30
    """Logs before a run may be called flat."""
    plateau_errors: float = 2.0
    """A rise from first to last third by less than so many standard errors is no rise, where the policy has not moved
    either ..."""
    plateau_moved: float = 0.2
    """... which is to say that entropy and length are within this share of where they were ..."""
    plateau_moved_errors: float = 3.0
    """... and differ by less than so many standard errors: a policy that learns slowly still moves steadily."""
    plateau_errors_moved: float = 0.5
    """Where the policy did move, the rise must be smaller: the reward of a few prompts hides a real one easily."""
    plateau_done: float = 0.5
    """Share of the job after which a policy that has not moved ends it: its model is its parent, so nothing is lost."""
    plateau_held_out: float = 0.05
    plateau_held_out_loss: float = 0.02
    """Held-out answers (share) or loss (relative) that got better by this much: it is no plateau, whatever the training
    metric says. The held-out loss is of the same rows each time and next to free of noise; it alone can end SFT or DPO
    as flat, as most of what a LoRA learns is learnt in its first steps, and drowns in the noise of batches."""

    declined: float = 0.9
    declined_errors: float = 3.0
    """A reward that is lower in the last third than in the first by this share and by so many standard errors fell,
    slowly."""

    stall_seconds: float = 60.0
    stall_steps: float = 20.0
    stall_gaps: float = 3.0
    """Stalled data: no log for so many seconds, and for so many times the median time between logs, and for so many
    times the longest wait so far (an evaluation or a checkpoint makes a long one)."""
    stall_stop_seconds: float = 3600.0
    """A wait that ends the job: checkpoints of large models and evaluations take tens of minutes on slow storage."""


THRESHOLDS = Thresholds()
