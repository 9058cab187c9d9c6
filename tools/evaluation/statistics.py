"""The statistics of gates and reports: one score's interval, and the paired test of two scores on the same items.

Sources:
    Wilson interval: E. B. Wilson, JASA 22 (1927) 209; Brown, Cai, DasGupta, Statistical Science 16 (2001) 101.
    Exact McNemar test: Q. McNemar, Psychometrika 12 (1947) 153, with the binomial tail instead of chi-squared.
    Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    Detectable effect of a paired design: R. J. Connor, Biometrics 43 (1987) 207.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from posttrain_crew.errors import InputError

__all__ = [
    "Interval",
    "Paired",
    "mcnemar_exact",
    "minimum_detectable_effect",
    "paired_bootstrap",
    "paired_cells",
    "wilson",
]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends in score units (0-1)."""

    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The four cells of two right/wrong series over the same items: counts of items."""

    both: int
    gained: int
    """Right in the first series only."""
    lost: int
    """Right in the second series only."""
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.gained + self.lost + self.neither

    @property
    def delta(self) -> float:
        """First score less second score, -1 to 1."""
        return (self.gained - self.lost) / self.n


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion; with n = 0 nothing is known: (0, 1).

    Raises:
        InputError: successes is not within 0..n, or confidence not within (0, 1).
    """
    if not 0 <= successes <= n or not 0 < confidence < 1:
        raise InputError(f"no Wilson interval for {successes} of {n} at confidence {confidence}.")
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)  # exact there; rounding would leave 1e-18
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def paired_cells(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Count the four cells of two series, item i of one beside item i of the other.

    Raises:
        InputError: the series are empty or of different length.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"a paired comparison needs two equally long series, not {len(first)} and {len(second)}.")
    pairs = list(zip(first, second, strict=True))
    both = sum(1 for a, b in pairs if a and b)
    gained = sum(1 for a, b in pairs if a and not b)
    lost = sum(1 for a, b in pairs if b and not a)
    return Paired(both, gained, lost, len(pairs) - both - gained - lost)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p value of the exact McNemar test; 1 where no item differs.

    Raises:
        InputError: a count is negative.
    """
    if gained < 0 or lost < 0:
        raise InputError(f"McNemar's test needs counts, not {gained} and {lost}.")
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def paired_bootstrap(
    first: Sequence[bool],
    second: Sequence[bool],
    seed: int,
    n_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of the mean difference, first less second.

    A resample of n items with replacement has cell counts that are multinomial (n; the observed shares), so the cells
    are drawn instead of the items: the same distribution in O(n_resamples).

    Raises:
        InputError: as `paired_cells`.
    """
    import numpy as np

    cells = paired_cells(first, second)
    shares = np.array([cells.both, cells.gained, cells.lost, cells.neither]) / cells.n  # [4]
    drawn = np.random.default_rng(seed).multinomial(cells.n, shares, size=n_resamples)  # [n_resamples, 4]
    deltas = (drawn[:, 1] - drawn[:, 2]) / cells.n
    tail = 50 * (1 - confidence)
    low, high = np.percentile(deltas, [tail, 100 - tail])
    return Interval(float(low), float(high))


def minimum_detectable_effect(n: int, discordant: float = 0.3, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference (0-1) that a paired test on n items finds with this power.

    Solves Connor's n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2 for d, psi being the share of `discordant` items.
    A d above psi cannot be; then psi is returned.

    Raises:
        InputError: n < 1, or a share is not within (0, 1].
    """
    if n < 1 or not 0 < discordant <= 1 or not 0 < alpha < 1 or not 0 < power < 1:
        raise InputError(f"no detectable effect for n={n}, discordant={discordant}, alpha={alpha}, power={power}.")
    z_alpha, z_beta = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)

    def needed(d: float) -> float:
        return (z_alpha * math.sqrt(discordant) + z_beta * math.sqrt(max(0.0, discordant - d * d))) ** 2 / (d * d)

    low, high = 1e-9, discordant
    if needed(high) > n:
        return discordant
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > n else (low, middle)
    return high
