"""`Complete` by litellm: any model and any OpenAI-compatible server, as the user's settings name them."""

from __future__ import annotations

from typing import Any

from posttrain_crew.errors import AccessDeniedError, InputError, ServiceUnavailableError
from posttrain_crew.redact import redact
from posttrain_crew.settings import Settings
from posttrain_crew.tools.data.synthesis.base import Message
from posttrain_crew.tools.data.synthesis.chat import Completion, RefusedError
from posttrain_crew.tools.services.llm_request import ATTEMPTS, complete, denied, price

__all__ = ["LiteLLMComplete"]


class LiteLLMComplete:
    """One request through litellm, with its retries (services/llm_request.py).

    Args:
        model: a litellm model name such as `openai/gpt-5` or `ollama/qwen3`.
        settings: address, key and prices.
        when_down: what is told when the model does not answer: what is kept, and what to do.

    Raises:
        InputError: the name is empty, or `playbook`, which writes nothing.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        *,
        timeout_s: float = 600.0,
        retry_wait_s: float = 1.0,
        when_down: str = "What was sampled is kept; the same command goes on.",
    ) -> None:
        if not model.strip() or model == "playbook":
            raise InputError(
                f"{model!r} is no language model that could write or read text. Name one as litellm does, for example "
                "`openai/gpt-5` or `ollama/qwen3`; CREW_LLM_BASE_URL and CREW_LLM_API_KEY say where it is."
            )
        self.model = model
        self._settings = settings
        self._timeout_s = timeout_s
        self._retry_wait_s = retry_wait_s
        self._when_down = when_down

    @property
    def address(self) -> str:
        """Where the model is, for telling two servers apart."""
        return self._settings.llm_base_url or ""

    def price(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """USD, by the user's prices, else by litellm's map; None where neither knows the model."""
        settings = self._settings
        return price(self.model, prompt_tokens, completion_tokens, settings.llm_price_in, settings.llm_price_out)

    def __call__(self, messages: list[Message], *, temperature: float, max_tokens: int, seed: int) -> Completion:
        """See `Complete`."""
        answer = self._ask(messages, temperature, max_tokens, seed)
        text = (answer.choices[0].message.content or "") if answer.choices else ""
        used = getattr(answer, "usage", None)
        sent, said = (int(getattr(used, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens"))
        return Completion(text, sent, said, self.price(sent, said))

    def _ask(self, messages: list[Message], temperature: float, max_tokens: int, seed: int) -> Any:
        from litellm import exceptions

        key = self._settings.llm_api_key
        try:
            return complete(
                self.model,
                messages,
                timeout_s=self._timeout_s,
                retry_wait_s=self._retry_wait_s,
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed,
                api_base=self._settings.llm_base_url or None,
                api_key=key.get_secret_value() if key is not None else None,
            )
        except exceptions.BadRequestError as error:  # a content rule, a prompt beyond the context, a wrong name
            if "provider not provided" in str(error).lower():
                raise InputError(
                    f"litellm does not know the model `{self.model}`: write it with its provider, for example "
                    "`openai/gpt-5`, or `openai/NAME` for a server of your own (CREW_LLM_BASE_URL)."
                ) from error
            raise RefusedError(self._told(error)) from error
        except denied() as error:
            raise AccessDeniedError(
                f"the model `{self.model}` could not be used: {self._told(error)} Check its name, "
                "CREW_LLM_BASE_URL and CREW_LLM_API_KEY.",
                service="llm",
            ) from error
        except Exception as error:
            raise ServiceUnavailableError(
                f"the model `{self.model}` did not answer in {ATTEMPTS} attempts: {self._told(error)} "
                f"{self._when_down}",
                service="llm",
            ) from error

    def _told(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        if self._settings.llm_api_key is not None:
            text = text.replace(self._settings.llm_api_key.get_secret_value(), "[redacted]")
        return f"{type(error).__name__}: {redact(text)[:400]}."
