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
    """Divergence: three losses above factor x start + margin (nats). Healthy losses stay under their start but for the
    noise of a batch; the margin keeps a start near 0 from alarming."""

    overfit_warn: float = 1.15
    overfit_stop: float = 1.5
    """Held-out loss over its best. A noisy held-out set of 64 rows moves by under 5 % in healthy histories."""

    collapse_ratio: float = 0.5
    """Reward collapse: all logs of a window under this share of the best three logs."""
    collapse_errors: float = 4.0
    """... and lower by so many standard errors: a batch of four completions may halve its reward by chance."""

    same_all: float = 0.98
    same_most: float = 0.85
    """Share of groups without variance (`frac_reward_zero_std`): all but none; so many that little is learnt. Healthy
    histories stay under 0.6 until the reward is near its maximum."""
    never_fires: float = 0.01
    """A mean reward that never exceeded this has not fired."""

    length_factor: float = 2.0
    length_cut: float = 0.4
    length_cut_stop: float = 0.5
    length_start_cut: float = 0.2
    """Length explosion: mean length over its start, and the share that runs into the limit (`completions/clipped_ratio`)
    at the end and at the start. A base that learns to show its work may well double in length, but does not run
    into the limit."""
    length_paid: float = 0.35
    """Reward per token that changed by less than this while the length at least doubled: it is length that is paid."""

    unended: float = 0.8
    unended_stop: float = 0.95
    """Never ends: share of completions that run into the limit, from the first log on."""

    hack_drop: float = 0.1
    hack_errors: float = 2.5
    """Reward hacking: the watched reward is lower than at the start by this much (share of right answers) and by so many
    standard errors, while the training reward rose."""
    hack_rise: float = 0.05
    """Rise of the training reward, relative to its range so far."""

    entropy_share: float = 0.1
    entropy_floor: float = 0.02
    """Entropy collapse: entropy under this share of its start, where it began above the floor (nats per token). In the
    end of healthy histories it is 0.25 to 0.6 of the start; Cui et al. 2025 (arXiv:2505.22617) report that reward
    stops rising as entropy goes to 0."""
    entropy_gain: float = 0.05
    """A reward that rose by more than this is what the entropy was spent on."""

    kl: float = 1.0
    """KL divergence from the reference, nats per token. Usual runs end below 0.2 (healthy histories: at most 0.15)."""

    plateau_logs: int = 30
    """Logs before a run may be called flat."""
    plateau_errors: float = 2.0
    """A rise from first to last third by less than so many standard errors is no rise."""

    stall_seconds: float = 60.0
    stall_steps: float = 20.0
    stall_gaps: float = 3.0
    """Stalled data: no log for so many seconds, and for so many times the median time between logs, and for so many
    times the longest wait so far (an evaluation or a checkpoint makes a long one)."""
    stall_stop_seconds: float = 900.0
    """A wait that ends the job: a shared file system that hangs comes back within minutes, or not at all."""


THRESHOLDS = Thresholds()
