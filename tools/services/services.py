"""Which sources a run asks, and where they are: what ships with crew, the live services, or a loopback copy of them.

Services.parse("shipped")              the library and the catalogues that come with crew; no network
Services.parse("live")                 Semantic Scholar, arXiv, Hugging Face (CREW_*_URL, HF_ENDPOINT change addresses)
Services.parse("live,shipped")         both
Services.parse("loopback")             the same clients against `python -m tests.loopback` (CREW_LOOPBACK_URL)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from posttrain_crew.errors import InputError, ServiceUnavailableError
from posttrain_crew.settings import Settings, cache_dir
from posttrain_crew.tools.services.cache import AnswerCache
from posttrain_crew.tools.services.http import PATIENCE_S, Service
from posttrain_crew.tools.services.reach import connection_problem

__all__ = ["SOURCES", "Addresses", "Services", "unreachable"]

_HUB_KEY = "a token (HF_TOKEN or `hf auth login`), or terms that you accept on its page"
SOURCES = ("shipped", "live", "loopback")


@dataclass(frozen=True)
class Addresses:
    """Base URLs of the services."""

    hub: str
    datasets_server: str
    s2: str
    arxiv_api: str
    arxiv: str
    ar5iv: str

    @classmethod
    def live(cls, settings: Settings) -> Addresses:
        """The real ones, unless the environment names others."""
        return cls(
            hub=os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"),
            datasets_server=settings.datasets_server_url,
            s2=settings.s2_url,
            arxiv_api=settings.arxiv_api_url,
            arxiv=settings.arxiv_url,
            ar5iv=settings.ar5iv_url,
        )

    @classmethod
    def loopback(cls, url: str) -> Addresses:
        """All of them as paths of one server."""
        root = url.rstrip("/")
        return cls(root, f"{root}/datasets-server", f"{root}/s2", f"{root}/arxiv", f"{root}/arxiv", f"{root}/ar5iv")


@dataclass(frozen=True)
class Services:
    """The sources of a run; clients take their `Service` from here, so that pace and breaker are shared.

    Args:
        names: as the user gave them (`--sources`).
        addresses: where the services are; None when none may be asked.
        settings: keys.
        cache: folder for answers; None keeps none.
        interval_factor: 0 in tests and on loopback, where nobody is hurried.
        timeout_s: of each service (see Service).
        patience_s: of each service, for one question.
    """

    names: tuple[str, ...] = ("shipped",)
    addresses: Addresses | None = None
    settings: Settings = field(default_factory=Settings)
    cache: Path | None = None
    interval_factor: float = 1.0
    timeout_s: float = 30.0
    patience_s: float = PATIENCE_S
    _made: dict[str, Service] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, settings: Settings | None = None, cache: Path | None = None) -> Services:
        """Read what the user gave to `--sources`. Raises InputError."""
        settings = settings or Settings()
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        unknown = [name for name in names if name not in SOURCES]
        if unknown or not names:
            raise InputError(
                f"sources {text!r}: {', '.join(unknown) or 'nothing'} is not known. Give one or more of "
                f"{', '.join(SOURCES)}, separated by commas."
            )
        if {"live", "loopback"} <= set(names):
            raise InputError("sources: live and loopback are the same services at two addresses; give one of them.")
        addresses = None
        if "loopback" in names:
            addresses = Addresses.loopback(settings.loopback_url)
        elif "live" in names:
            addresses = Addresses.live(settings)
        place = (cache or cache_dir()) / "services"
        return cls(names, addresses, settings, place, 0.0 if "loopback" in names else 1.0)

    @property
    def shipped(self) -> bool:
        """Whether the library and the catalogues that come with crew are used."""
        return "shipped" in self.names

    @property
    def online(self) -> bool:
        """Whether services may be asked."""
        return self.addresses is not None

    @property
    def hub_token(self) -> str | None:
        """The Hub token of HF_TOKEN or `hf auth login`. Never shown, and only sent to `addresses.hub`'s services."""
        if "loopback" in self.names:
            return "hf_loopback"  # the user's own token has no business there
        from huggingface_hub import get_token

        return get_token()

    @cached_property
    def semantic_scholar(self) -> Service:
        """1 request a second with a key; without one the pool is shared by everybody, so go no faster."""
        key = self.settings.s2_api_key
        return self._service(
            "semantic_scholar",
            self._at.s2,
            1.05,
            {"x-api-key": key.get_secret_value()} if key else None,
            "a valid CREW_S2_API_KEY",
        )

    @cached_property
    def arxiv_api(self) -> Service:
        """arXiv asks for at most one request in three seconds (arXiv API user's manual)."""
        return self._service("arxiv", self._at.arxiv_api, 3.0)

    @cached_property
    def arxiv(self) -> Service:
        """Full texts."""
        return self._service("arxiv_html", self._at.arxiv, 3.0)

    @cached_property
    def ar5iv(self) -> Service:
        """Full texts of older papers as HTML."""
        return self._service("ar5iv", self._at.ar5iv, 1.0)

    @cached_property
    def hub(self) -> Service:
        """Papers, datasets and files of the Hub. 500 calls in 5 minutes without a token, 1,000 with one."""
        return self._service("huggingface", self._at.hub, 0.2, self._bearer, _HUB_KEY)

    @cached_property
    def datasets_server(self) -> Service:
        """The dataset viewer's service."""
        return self._service("datasets_server", self._at.datasets_server, 0.2, self._bearer, _HUB_KEY)

    @property
    def _at(self) -> Addresses:
        if self.addresses is None:
            raise InputError(
                f"no service may be asked with sources {','.join(self.names)}: choose `--sources live` to allow it."
            )
        return self.addresses

    @property
    def _bearer(self) -> Mapping[str, str] | None:
        token = self.hub_token
        return {"authorization": f"Bearer {token}"} if token else None

    def _service(
        self, name: str, url: str, interval_s: float, headers: Mapping[str, str] | None = None, key: str = ""
    ) -> Service:
        with self._lock:  # two threads that ask first at the same time share it, and with it pace and breaker
            if name not in self._made:
                self._made[name] = Service(
                    name,
                    url,
                    headers=headers,
                    key=key,
                    interval_s=interval_s * self.interval_factor,
                    timeout_s=self.timeout_s,
                    patience_s=self.patience_s,
                    backoff_s=0.02 if self.interval_factor == 0 else 1.0,
                    cache=AnswerCache(self.cache / name) if self.cache else None,
                )
            return self._made[name]


def unreachable(services: Services) -> ServiceUnavailableError | None:
    """Why a run on these sources would find nothing at all, told before it starts; None when something answers.

    One TCP connection is opened and closed, to the Hub, which both papers and datasets need. Services that fail later
    are reported on the blackboard, and what is left is used.
    """
    if services.addresses is None or services.shipped:
        return None
    loopback = "loopback" in services.names
    problem = connection_problem(services.addresses.hub, direct=loopback)
    if problem is None:
        return None
    todo = (
        "Start it with `python -m tests.loopback` in another terminal, or set CREW_LOOPBACK_URL."
        if loopback
        else "Connect, set HF_ENDPOINT to a mirror, or use `--sources shipped`."
    )
    return ServiceUnavailableError(
        f"nothing answers at {services.addresses.hub} ({problem[1]}), and the sources {','.join(services.names)} have "
        f"nothing else. {todo}",
        service="huggingface",
    )
