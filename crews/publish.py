"""The one way out: final_model/ of a run to the Hugging Face Hub.

`prepare` gathers what would be sent and refuses what must not be; `publish` sends exactly that, in one commit, and then
reads back what the Hub has. Nothing else in crew uploads a model: `push_to_hub` in a training config is refused.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.crews.model_card import ORIGIN_FILE
from posttrain_crew.entries import DatasetProfile, TrainingSet
from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    CrewError,
    GateError,
    InputError,
    ModelError,
    NotFoundError,
    RateLimitedError,
    RunBusyError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.files import sha256_file, sha256_text
from posttrain_crew.redact import redact
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.state import RunState
from posttrain_crew.tools.services.hub_client import client_errors, without_progress_bars

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Parcel", "PushFile", "check_place", "hub_api", "prepare", "publish"]

CARD = "README.md"
IMPROVED = "improved"
_HEAD = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPO = re.compile(rf"{_PART}/{_PART}")
_HUB_OWN = frozenset({".gitattributes"})
"""What the Hub puts into a new repository by itself."""


@dataclass(frozen=True)
class PushFile:
    """One file as it will be on the Hub."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """What a push sends."""

    run: str
    folder: Path
    subject: str
    """The experiment whose weights these are, or `base`."""
    verdict: str
    """`improved`, `no significant gain` or `not finished`."""
    reason: str
    files: tuple[PushFile, ...]
    card: str
    """README.md as it is sent: the folder's, less what the Hub would refuse in its head."""
    left_out: tuple[str, ...]
    """What was taken from the card's head."""
    licences: dict[str, str]
    """Of the card, the base model and each training source, as far as they are stated."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


def prepare(run: RunDirectory, *, anyway: bool = False) -> Parcel:
    """Look at final_model/ and at what the blackboard says of it. Nothing is sent, and no service asked.

    Args:
        anyway: also where the run's verdict is not `improved`.

    Raises:
        RunBusyError: the run is at work. GateError: its verdict is not `improved`. ModelError: final_model/ is missing,
        was changed after the verdict, is of another experiment, or holds a file that crew did not put there.
    """
    if (holder := run.holder()) is not None:
        raise RunBusyError(f"process {holder} is working on {run.id}: push when it has ended (`crew status {run.id}`).")
    board = Blackboard(run.blackboard)
    state = RunState.of(board)
    verdict, reason = "not finished", "the final gate has not decided yet."
    if state.verdict is not None:
        verdict = IMPROVED if state.verdict.body.action == "accept" else "no significant gain"
        reason = state.verdict.body.reason
    if verdict != IMPROVED and not anyway:
        raise GateError(
            f"nothing was uploaded: the verdict of {run.id} is `{verdict}`: {reason} A model whose gain is not proven "
            "is published with `--anyway` only; its card says the same."
        )
    origin, files = _checked(run)
    subject = str(origin.get("subject"))
    if subject != (expected := state.best if verdict == IMPROVED else "base"):
        raise ModelError(f"{run.final_model} holds {subject}, but the verdict is about {expected}: run `crew resume`.")
    card, left_out = _card_for_hub(run.final_model / CARD)
    files.append(PushFile(CARD, len(card.encode()), sha256_text(card)))
    return Parcel(
        run.id, run.final_model, subject, verdict, reason, tuple(sorted(files, key=lambda file: file.name)), card,
        left_out, _licences(board, state, subject, card),
    )  # fmt: skip


def _checked(run: RunDirectory) -> tuple[dict[str, Any], list[PushFile]]:
    """crew.json, and the files that it vouches for with itself."""
    folder = run.final_model
    try:
        origin = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
        promised = {str(name): str(digest) for name, digest in dict(origin["sha256"]).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} is no finished model: {ORIGIN_FILE}, which crew writes there at a run's end, cannot be read "
            f"({error}). `crew resume {run.id}` ends a run that was interrupted."
        ) from error
    allowed = {*promised, CARD, ORIGIN_FILE}
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    links = sorted(name for name, path in found.items() if path.is_symlink() or not path.is_file())
    if stray := sorted((found.keys() - allowed) | set(links)):
        raise ModelError(
            f"{folder} holds what crew did not put there: {', '.join(stray[:5])}. Only the run's model is published: "
            "move it elsewhere."
        )
    if gone := sorted(allowed - found.keys()):
        raise ModelError(f"{folder} is not complete any more: {', '.join(gone[:5])} missing.")
    files = [PushFile(name, found[name].stat().st_size, sha256_file(found[name])) for name in (*promised, ORIGIN_FILE)]
    changed = [file.name for file in files if file.name != ORIGIN_FILE and file.sha256 != promised[file.name]]
    if changed:
        raise ModelError(
            f"{', '.join(changed)} in {folder} changed after the run had written it, so it is not what was measured. "
            "Nothing was uploaded."
        )
    return origin, files


def _card_for_hub(path: Path) -> tuple[str, tuple[str, ...]]:
    """The card without those ids in its head that are none of the Hub's, which it refuses; the text keeps them."""
    try:
        text = path.read_text(encoding="utf-8")
        head = _HEAD.match(text)
        front = yaml.safe_load(head[1]) if head else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"the model card {path} cannot be read: {error}") from error
    if head is None or not isinstance(front, dict):
        raise ModelError(f"the model card {path} has no YAML head between two lines of `---`.")
    left_out = []
    for key in ("base_model", "datasets"):
        values = front.get(key)
        named = values if isinstance(values, list) else [] if values is None else [values]
        if strange := [str(value) for value in named if not _REPO.fullmatch(str(value))]:
            left_out += [f"{key}: {value}" for value in strange]
            kept = [value for value in named if str(value) not in strange]
            front = {name: value for name, value in front.items() if name != key} | ({key: kept} if kept else {})
    if not left_out:
        return text, ()
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{text[head.end() :]}", tuple(left_out)


def _licences(board: Blackboard, state: RunState, subject: str, card: str) -> dict[str, str]:
    head = _HEAD.match(card)
    front = yaml.safe_load(head[1]) if head else {}
    base = state.run.body.base_model if state.run is not None else "the base model"
    told = {"this model's card": str(front.get("license") or "not stated"), f"base {base}": "see its own card"}
    profiles = {entry.body.dataset: entry.body.licence for entry in board.of(DatasetProfile)}
    while subject in state.experiments:
        body = state.experiments[subject].entry.body
        for share in board.typed(body.training_set, TrainingSet).body.sources:
            told[f"data {share.dataset}"] = profiles.get(share.dataset) or "not known"
        subject = body.parent
    return told


def hub_api(endpoint: str | None = None) -> HfApi:
    """The Hub's client with the user's token.

    Args:
        endpoint: without it HF_ENDPOINT, else huggingface.co.

    Raises:
        InputError: there is no token, or the client is set to offline.
    """
    from huggingface_hub import HfApi, constants, get_token

    without_progress_bars()
    if constants.is_offline_mode():
        raise InputError("HF_HUB_OFFLINE is set, so the Hub cannot be reached: unset it to push.")
    token = get_token()
    if not token:
        raise InputError(
            "there is no Hub token: set HF_TOKEN, or run `hf auth login`, with a token that may write there "
            "(https://huggingface.co/settings/tokens)."
        )
    return HfApi(endpoint=endpoint, token=token, library_name="posttrain-crew")


def check_place(api: HfApi, repo: str, parcel: Parcel, *, private: bool) -> str:
    """Whether the parcel may go there: `new`, or `there` for a repository that holds at most older copies of its files.

    Raises:
        InputError: the name is none, the repository holds other files, or it is public and `private` is wanted.
        ServiceError: the Hub refuses, or does not answer.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise InputError(f"`{repo}` is no name of a Hub repository: give OWNER/NAME, as in `--to your-name/my-model`.")
    try:
        api.whoami()
    except _client_errors() as error:
        raise _typed(error, "tell whose the token is") from error
    try:
        found = api.model_info(repo)
    except RepositoryNotFoundError:
        return "new"
    except _client_errors() as error:
        raise _typed(error, f"look at {repo}") from error
    if private and not found.private:
        raise InputError(
            f"{repo} exists and is public: say `--public` if everybody may have the model, or another name."
        )
    names = {sibling.rfilename for sibling in found.siblings or []}
    if other := sorted(names - {file.name for file in parcel.files} - _HUB_OWN):
        raise InputError(
            f"{repo} exists and holds other files ({', '.join(other[:5])}), which would pass for parts of this model. "
            "Give another name."
        )
    return "there"


def publish(api: HfApi, repo: str, parcel: Parcel, *, private: bool) -> str:
    """Send the parcel in one commit and check what the Hub then has. Returns the commit's address.

    Raises:
        ServiceError: the Hub refuses, or does not answer; then the repository holds all of the commit or nothing of it.
        BadAnswerError: what is there is not what was sent. ModelError: the Hub refuses the card's head, or a file
        changed since `prepare`.
    """
    from huggingface_hub import CommitOperationAdd

    operations = [
        CommitOperationAdd(
            path_in_repo=file.name,
            path_or_fileobj=parcel.card.encode() if file.name == CARD else str(parcel.folder / file.name),
        )
        for file in parcel.files
    ]
    message = f"{parcel.subject} of the run {parcel.run}: {parcel.verdict}"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise InputError(f"{repo} is public, so nothing was uploaded to it: say `--public`, or another name.")
        commit = api.create_commit(repo, operations, commit_message=message)
    except _client_errors() as error:
        raise _typed(error, f"take the model at {repo}") from error
    except RuntimeError as error:  # the client's word for a large file that did not get through
        cause = error.__cause__
        raise _typed(cause if isinstance(cause, Exception) else error, f"take the model at {repo}") from error
    except ValueError as error:  # of the client as well
        if "metadata in README" in str(error):
            raise ModelError(f"the Hub refuses the model card: {redact(' '.join(str(error).split()))[:400]}") from error
        raise BadAnswerError(
            f"the Hub answered in a form that cannot be read: {_said(error)}.", service="hub"
        ) from error
    except OSError as error:
        raise ModelError(f"a file of {parcel.folder} cannot be read: {error}") from error
    try:
        wrong = _differences(api, repo, str(commit.oid), parcel)
    except _client_errors() as error:
        raise ServiceUnavailableError(
            f"the model was uploaded ({commit.commit_url}), but what is there could not be checked: {_said(error)}. "
            "The same command again uploads nothing that is there already, and checks.", service="hub",
        ) from error  # fmt: skip
    if wrong:
        raise BadAnswerError(
            f"what {repo} now holds is not what was sent: {'; '.join(wrong[:5])}. Delete the repository, "
            "and push again.", service="hub",
        )  # fmt: skip
    return str(commit.commit_url)


def _differences(api: HfApi, repo: str, revision: str, parcel: Parcel) -> list[str]:
    """What of the commit is not as sent. The Hub states the SHA-256 of large files; small ones are fetched."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repo, recursive=True, revision=revision)
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    wrong = [f"{name} is there too" for name in sorted(there.keys() - {f.name for f in parcel.files} - _HUB_OWN)]
    with tempfile.TemporaryDirectory(prefix="crew-push-") as folder:
        for file in parcel.files:
            entry = there.get(file.name)
            if entry is None:
                wrong.append(f"{file.name} is missing")
                continue
            if entry.lfs is not None:
                digest = str(entry.lfs.sha256)
            else:
                digest = sha256_file(Path(api.hf_hub_download(repo, file.name, revision=revision, local_dir=folder)))
            if digest != file.sha256:
                wrong.append(f"{file.name} has sha256 {digest[:12]}, not {file.sha256[:12]}")
    return wrong


def _client_errors() -> tuple[type[Exception], ...]:
    """As the client's own, and for a file that it should have fetched and has not."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return *client_errors(), LocalEntryNotFoundError


def _typed(error: Exception, what: str) -> CrewError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    message = f"the Hub did not {what}: {_said(error)}"
    kind, advice = ServiceError, "."
    if status in (401, 403):
        kind, advice = AccessDeniedError, ". Take a token that may write there: HF_TOKEN, or `hf auth login`."
    elif status == 404:
        kind, advice = NotFoundError, ". Check the owner's name."
    elif status == 429:
        kind, advice = RateLimitedError, ". Try again later."
    elif status is None or status >= 500:
        kind, advice = ServiceUnavailableError, ". The same command again goes on: a commit is there as a whole or not."
    return kind(message + advice, service="hub", status=status)


def _said(error: Exception) -> str:
    return redact(" ".join(f"{type(error).__name__}: {error}".split()))[:300].rstrip(".")
