"""The shape of a model on the Hugging Face Hub, from its metadata and config.json: no weights are brought."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from posttrain_crew.errors import AccessDeniedError, BadAnswerError, ModelError, ServiceUnavailableError
from posttrain_crew.tools.services.hub_client import client_errors, without_progress_bars
from posttrain_crew.tools.training.shape import ModelShape, shape_of

__all__ = ["hub_shape"]

_SECONDS = 20.0


def hub_shape(repo: str) -> ModelShape:
    """The shape of `owner/name`. The number of parameters is the Hub's own count over the safetensors headers.

    Raises:
        ModelError: the Hub has no such model, or not as safetensors, or its config.json names no shape.
        AccessDeniedError: it is gated, and the token (if any) was not let in.
        ServiceUnavailableError: the Hub did not answer.
        BadAnswerError: it answered with no JSON.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    without_progress_bars()
    unreached: tuple[type[Exception], ...] = (*client_errors(), OSError)
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        told = hub.model_info(repo, timeout=_SECONDS)
        text = Path(hub.hf_hub_download(repo, "config.json", revision=told.sha, etag_timeout=_SECONDS)).read_bytes()
    except GatedRepoError as error:
        raise AccessDeniedError(
            f"the model {repo} is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN."
        ) from error
    except RemoteEntryNotFoundError as error:
        raise ModelError(f"the model {repo} has no config.json on the Hub, so its shape is not known.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"the Hub shows no model `{repo}`: check the name; a private one needs `hf auth login` or HF_TOKEN."
        ) from error
    except unreached as error:
        raise ServiceUnavailableError(
            f"the Hub was asked for the shape of {repo} and did not answer ({type(error).__name__}: {error}). Repeat "
            "it later, set HF_ENDPOINT to a mirror, or give the model's folder."
        ) from error
    except ValueError as error:
        raise BadAnswerError(f"the Hub's answer about {repo} is no JSON: {error}. Repeat it later.") from error
    try:
        config: Any = json.loads(text)
    except ValueError as error:
        raise ModelError(f"config.json of {repo} on the Hub is no JSON: {error}.") from error
    parameters = told.safetensors.total if told.safetensors is not None else 0
    if not parameters:
        raise ModelError(
            f"the Hub counts no safetensors weights in {repo}: download it, save it as such, give its folder."
        )
    try:
        return shape_of(config, parameters)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"config.json of {repo} has no numbers where a model's shape is: {error}.") from error
