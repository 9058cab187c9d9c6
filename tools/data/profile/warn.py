"""What in a profile a reader should not miss, in words."""

from __future__ import annotations

from posttrain_crew.tools.data.profile.model import Profile

__all__ = ["warnings_of"]

MAX_NAMED = 5
NULLS = 0.05
REPEATS = 0.01
OTHER_LANGUAGE = 0.02
BIAS_P = 0.001
BIAS_V = 0.1
"""Cohen's small effect: with enough rows the smallest bias is significant."""


def warnings_of(profile: Profile) -> list[str]:
    """Warnings, the gravest first."""
    return [text for part in (_rows, _columns, _repeats, _texts, _answers, _chats, _pii) for text in part(profile)]


def _rows(profile: Profile) -> list[str]:
    found = []
    if not profile.rows:
        found.append("it holds no rows")
    if profile.unreadable:
        found.append(f"{profile.unreadable} of {profile.rows} rows cannot be read, or are too large to be rows")
    if profile.format == "unknown" and profile.rows_read:
        found.append("the format is none that crew knows: a role map or a conversion of your own is needed")
    mixed = profile.sample - profile.formats.get(profile.format, 0)
    if profile.sample and mixed:
        found.append(f"{mixed} of {profile.sample} sampled rows are not of the format {profile.format}")
    if profile.licence is None:
        found.append("no licence is stated")
    return found


def _columns(profile: Profile) -> list[str]:
    found = []
    mixed = [
        c.path
        for c in profile.columns
        if len([k for k in c.types if k not in ("integer", "number")]) + ("integer" in c.types or "number" in c.types)
        > 1
    ]
    if mixed:
        found.append(f"values of several types in {_named(mixed)}")
    holes = [f"{c.path} ({c.null_rate:.0%})" for c in profile.columns if c.null_rate > NULLS]
    if holes:
        found.append(f"null or missing: {_named(holes)}")
    empty = [f"{c.path} ({c.empty_rate:.0%})" for c in profile.columns if c.empty_rate > NULLS]
    if empty:
        found.append(f"empty: {_named(empty)}")
    strange = [c.path for c in profile.columns if c.not_finite]
    if strange:
        found.append(f"NaN or infinite numbers in {_named(strange)}")
    binary = [c.path for c in profile.columns if "binary" in c.types]
    if binary:
        found.append(f"binary values, which were not looked into, in {_named(binary)}")
    if profile.columns_left_out:
        found.append(f"{profile.columns_left_out} further columns or nested places were not profiled")
    return found


def _repeats(profile: Profile) -> list[str]:
    found = []
    for what, repeats in (("rows", profile.repeated_rows), ("prompts", profile.repeated_prompts)):
        if repeats and repeats.rate > REPEATS:
            found.append(f"{repeats.rate:.1%} of the {what} repeat an earlier one")
    near = profile.near_duplicates
    if near and near.low > REPEATS:
        found.append(
            f"about {near.rate:.1%} of the distinct rows nearly repeat another ({near.low:.1%}-{near.high:.1%})"
        )
    return found


def _texts(profile: Profile) -> list[str]:
    found = []
    if profile.tokens and not profile.tokens.exact:
        found.append("tokens are guessed from characters: name a target whose base model is here to count them")
    if profile.tokens and profile.tokens.over_context_rate:
        found.append(
            f"{profile.tokens.over_context_rate:.1%} of the sampled rows exceed the base model's context of "
            f"{profile.tokens.context} tokens"
        )
    told = [each for each in profile.languages if each.code != "und"]  # short texts and formulas have no language
    others = [f"{each.code} ({each.share:.0%})" for each in told[1:] if each.share > OTHER_LANGUAGE]
    if others:
        found.append(f"several languages: beside {told[0].code} also {_named(others)}")
    return found


def _answers(profile: Profile) -> list[str]:
    bias = profile.answer_positions
    if bias is None or bias.chi_square_p >= BIAS_P or bias.cramers_v < BIAS_V:
        return []
    label = max(bias.positions, key=lambda each: bias.positions[each])
    return [
        f"the right choice is {label} in {bias.positions[label] / bias.n:.0%} of {bias.n} rows with {bias.choices} "
        f"choices (chi-squared p = {bias.chi_square_p:.2g}, Cramer's V = {bias.cramers_v:.2f}): shuffle the choices"
    ]


def _chats(profile: Profile) -> list[str]:
    return [
        f"{chat.defect_rate:.2%} of the conversations in {chat.column} have defects: "
        + _named([f"{name} ({count})" for name, count in chat.defects.items()])
        for chat in profile.chat
        if chat.defect_rate
    ]


def _pii(profile: Profile) -> list[str]:
    if not profile.pii:
        return []
    hints = [f"{hint.kind} in {hint.column} ({hint.rows})" for hint in profile.pii]
    return [f"possible personal data or secrets: {_named(hints)}"]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(name[:100] for name in names[:MAX_NAMED]) + more
