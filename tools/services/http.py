"""One HTTP service that tells the truth: every request ends with an answer of status 200 or in a typed ServiceError.

Tries again what may work later (429, 5xx, time-outs, broken connections), honours Retry-After, keeps an interval
between requests, bounds the size and the time of an answer and the patience for one question, and leaves a service that
is down, or that asked for a long pause, alone for a while.
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.tools.services.cache import AnswerCache
from posttrain_crew.tools.services.pace import CircuitBreaker, Pace, Patience

__all__ = ["PATIENCE_S", "Answer", "Params", "Service"]

Params = Mapping[str, str | int | float | bool | Sequence[str] | None]
"""Query parameters; None leaves one out, a list repeats it. All are percent-encoded: a value cannot add a parameter."""

MAX_ANSWER_BYTES = 32 * 2**20
PATIENCE_S = 30.0
"""What one question may cost in pauses and failed tries: somebody waits for the answer. A service that wants a longer
pause is reported with it, not waited for."""
CONNECT_TIMEOUT_S = 5.0
CONNECT_TRIES = 2
"""No network, a wrong address, nobody listening: that seldom changes within seconds."""
MAX_PAUSE_S = 3600.0
"""Of what a service asks for; a larger number is a mistake of the service, and would end all work of this process."""
ANSWER_TIMEOUTS = 4
"""Time-outs for one whole answer: a server that sends a byte now and then never runs into the one between bytes."""
LEAST_BYTES_PER_S = 1024
"""A download that is slower than this on average, after the time of a whole answer, is broken off."""
_T = TypeVar("_T")
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


@dataclass(frozen=True)
class Answer:
    """The answer to a request that succeeded."""

    service: str
    url: str
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""
    age_s: float = 0.0
    """Seconds since it came from the service; above 0 for one from the cache."""
    stale: str | None = None
    """Why an old answer from the cache stands in for the service, where it does: to be reported, never hidden."""

    @property
    def place(self) -> str:
        """The URL without its query, for messages: what is wrong comes after it."""
        return self.url.partition("?")[0][:200]

    def text(self) -> str:
        """The body as UTF-8; bytes that are none are replaced."""
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON, parsed once. Raises BadAnswerError."""
        return self._value

    @cached_property
    def _value(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            start = self.text()[:80]
            raise BadAnswerError(
                f"{self.service} answered {self.place} with something that is no JSON ({error}); it begins {start!r}.",
                service=self.service,
            ) from error


class Service:
    """A client of one service.

    Args:
        name: as it is told to users, for example `semantic_scholar`.
        base_url: to which paths are appended; a full URL is only accepted on this host.
        headers: sent with each request, for example a key. They never leave for another host, by a redirect neither.
        interval_s: least seconds between two requests.
        tries: requests at most for one answer.
        timeout_s: between two blocks of an answer; a whole one may take ANSWER_TIMEOUTS of it, a connection 5 s.
        key: what a refusal is ended by, as users are told it; empty where the service knows no keys.
        patience_s: for the pauses and failed tries of one question; none begins when it is used up. Waiting for the
            interval does not count: that is our own queue.
        cache: where answers of GET requests with `max_age_s` are kept.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        key: str = "a token, or terms that you accept on its page",
        interval_s: float = 0.0,
        tries: int = 4,
        timeout_s: float = 30.0,
        patience_s: float = PATIENCE_S,
        backoff_s: float = 1.0,
        cache: AnswerCache | None = None,
        breaker: CircuitBreaker | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._key = name, key
        self.base_url = base_url.rstrip("/")
        self._tries, self._backoff, self._answer_s = tries, backoff_s, ANSWER_TIMEOUTS * timeout_s
        self._patience_s = patience_s
        self._clock = clock
        self._pace = Pace(interval_s, clock=clock, sleep=sleep)
        self._paused_by: type[RateLimitedError | ServiceUnavailableError] = RateLimitedError
        self._cache = cache
        self._breaker = breaker or CircuitBreaker(name)
        self._own = tuple(headers or {})
        self._client = httpx.Client(
            headers={"user-agent": "posttrain-crew (https://github.com/posttrain-crew)", **(headers or {})},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            follow_redirects=True,
            event_hooks={"request": [self._keep_headers_home]},
        )

    def get(
        self,
        path: str,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        max_age_s: float = 0.0,
        stale_if_down: bool = False,
        max_bytes: int = MAX_ANSWER_BYTES,
        check: Callable[[Answer], object] | None = None,
    ) -> Answer:
        """GET.

        Args:
            max_age_s: an answer from the cache that is not older is good enough; 0 always asks.
            stale_if_down: an older one stands in (`Answer.stale`) when the service is down or wants no more requests.
            check: raises BadAnswerError of an answer that does not have the form it should: such a one is asked for
                once more, and never kept in the cache.

        Raises:
            NotFoundError, AccessDeniedError, RateLimitedError, ServiceUnavailableError, BadAnswerError (too large),
            ServiceError (any other refusal, with what the service said).
        """
        url = self._url(path)
        query = _encoded(params)
        key = sha256_text(canonical_json([url, query, dict(headers or {})]))
        stored = self._stored(url, key, check) if max_age_s or stale_if_down else None
        if stored is not None and stored.age_s <= max_age_s:
            return stored
        patience = Patience(self._patience_s)
        try:
            answer = _checked(lambda: self._ask("GET", url, query, headers, None, max_bytes, patience), check)
        except (ServiceUnavailableError, RateLimitedError) as error:
            if stored is None or not stale_if_down:
                raise
            return replace(stored, stale=str(error))
        if self._cache is not None and (max_age_s or stale_if_down):
            self._cache.store(key, answer.body, answer.headers)
        return answer

    def post_json(
        self,
        path: str,
        body: object,
        params: Params | None = None,
        *,
        max_bytes: int = MAX_ANSWER_BYTES,
        check: Callable[[Answer], object] | None = None,
    ) -> Any:
        """POST of JSON for look-ups that change nothing (they are tried again as GETs are). Raises as `get` does."""
        url, query, patience = self._url(path), _encoded(params), Patience(self._patience_s)
        return _checked(
            lambda: self._ask("POST", url, query, None, body, max_bytes, patience), check or Answer.json
        ).json()

    def download(self, path: str, to: Path, *, max_bytes: int) -> int:
        """Stream a file to disk by way of `<to>.part`; a broken transfer goes on where it stopped, if the server can.

        Returns the size in bytes. Raises as `get` does, and OSError of a full disk.
        """
        part = to.with_name(to.name + ".part")
        to.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        url = self._url(path)
        patience = Patience(self._patience_s)
        version: list[str] = []  # ETag of what is in `part`: a file that changed meanwhile is not glued to the old half

        def once() -> int:
            have = part.stat().st_size if part.exists() else 0
            try:
                return rest(have)
            except ServiceError as error:
                if error.status != 416 or not have:  # 416: it has no bytes after those, which are of another version
                    raise
                part.unlink()
                raise httpx.RemoteProtocolError("the transfer could not go on where it stopped") from error

        def rest(have: int) -> int:
            wanted = {"accept-encoding": "identity", **({"range": f"bytes={have}-"} if have else {})}
            if have and version:
                wanted["if-range"] = version[0]
            with self._opened("GET", url, [], wanted, None) as response:
                whole = response.headers.get("content-length", "")
                start = _start(response)
                if start not in (0, have):
                    part.unlink()
                    raise httpx.RemoteProtocolError(f"the transfer went on at byte {start}, not {have}")
                if start == 0:
                    etag = response.headers.get("etag", "")
                    version[:] = [etag] if etag and not etag.startswith("W/") else []
                with part.open("ab" if start else "wb") as stream:
                    for block in self._blocks(response, max_bytes - start, streamed=True):
                        stream.write(block)
                        patience.renew()  # it comes: what was waited for before is forgotten
                size = part.stat().st_size
                if whole.isdigit() and size != start + int(whole):
                    raise httpx.RemoteProtocolError("the transfer ended early")
                return size

        size = self._tried(url, once, patience)
        part.replace(to)
        return size

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _stored(self, url: str, key: str, check: Callable[[Answer], object] | None) -> Answer | None:
        """What the cache holds, if it still has the form that is asked for."""
        kept = self._cache.load(key) if self._cache else None
        if kept is None:
            return None
        answer = Answer(self.name, url, kept.body, kept.headers, kept.age_s)
        try:
            if check is not None:
                check(answer)
        except BadAnswerError:
            return None
        return answer

    def _keep_headers_home(self, request: httpx.Request) -> None:
        """httpx calls this for each hop of a redirect, and by itself takes no more than Authorization away."""
        home = httpx.URL(self.base_url)
        if (request.url.scheme, request.url.host, request.url.port) != (home.scheme, home.host, home.port):
            for name in self._own:
                request.headers.pop(name, None)

    def _url(self, path: str) -> str:
        if "://" not in path:
            return f"{self.base_url}/{path.lstrip('/')}"
        if httpx.URL(path).host != httpx.URL(self.base_url).host:
            raise ServiceError(f"{self.name} lives at {self.base_url}; {path[:200]} is elsewhere.", service=self.name)
        return path

    def _ask(
        self,
        method: str,
        url: str,
        query: list[tuple[str, str]],
        headers: Mapping[str, str] | None,
        body: object,
        max_bytes: int,
        patience: Patience,
    ) -> Answer:
        def once() -> Answer:
            with self._opened(method, url, query, headers, body) as response:
                content = b"".join(self._blocks(response, max_bytes))
                return Answer(self.name, str(response.url), content, dict(response.headers))

        return self._tried(url, once, patience)

    def _tried(self, url: str, once: Callable[[], _T], patience: Patience) -> _T:
        self._breaker.check()
        for attempt in range(1, self._tries + 1):
            self._wait(patience)
            begun = self._clock()
            try:
                result = once()
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
                raise ServiceError(f"{self.name}: {url[:300]} cannot be asked: {error}.", service=self.name) from error
            except (httpx.TransportError, httpx.DecodingError, ServiceUnavailableError, RateLimitedError) as error:
                patience.spend(self._clock() - begun)
                problem = self._typed(error, url)
                wait = self._backoff * 2 ** (attempt - 1) * (0.75 + 0.5 * random.random())
                if problem.retry_after is not None:
                    wait = min(max(problem.retry_after, 0.0), MAX_PAUSE_S)
                tries = self._tries
                if isinstance(error, _UNREACHED):
                    tries = min(tries, CONNECT_TRIES)
                    self._pace.unused()
                last = attempt >= tries or wait > patience.left
                if problem.retry_after is not None or not last:
                    self._paused_by = type(problem)
                    self._pace.hold(wait)  # the next question keeps the pause, too
                if last:
                    self._breaker.failed()
                    raise problem from error
            except ServiceError:
                self._breaker.succeeded()  # it refused, so it is up
                raise
            else:
                self._breaker.succeeded()
                return result
        raise AssertionError("the last try returns or raises")

    def _wait(self, patience: Patience) -> None:
        """Until a request may start. Raises what made the service ask for a pause, where that is too long to wait."""
        pause = self._pace.held()
        if pause > patience.left:
            raise self._paused_by(
                f"{self.name} asked for a pause, of which {pause:.0f} s are left; it is not asked before.",
                service=self.name,
                retry_after=pause,
            )
        patience.spend(pause)
        self._pace.wait()

    def _typed(self, error: Exception, url: str) -> ServiceUnavailableError | RateLimitedError:
        if isinstance(error, ServiceUnavailableError | RateLimitedError):
            return error
        if isinstance(error, _UNREACHED):
            return ServiceUnavailableError(
                f"{self.name} cannot be reached at {self.base_url[:200]} ({str(error)[:200] or type(error).__name__}): "
                "is the network up, and is this the right address?",
                service=self.name,
            )
        return ServiceUnavailableError(
            f"{self.name} gave no whole answer to {url[:300]}: {type(error).__name__}: {str(error)[:200]}.",
            service=self.name,
        )

    @contextmanager
    def _opened(
        self,
        method: str,
        url: str,
        query: list[tuple[str, str]],
        headers: Mapping[str, str] | None,
        body: object,
    ) -> Iterator[httpx.Response]:
        request = self._client.build_request(
            method,
            f"{url}?{urlencode(query)}" if query else url,
            headers=dict(headers or {}),
            json=body if method == "POST" else None,
        )
        response = self._client.send(request, stream=True)
        try:
            if response.status_code not in (200, 206):
                raise self._refusal(response, url)
            yield response
        finally:
            response.close()

    def _blocks(self, response: httpx.Response, max_bytes: int, streamed: bool = False) -> Iterator[bytes]:
        begun, size = time.monotonic(), 0
        for block in response.iter_bytes():  # as they come: a fixed size would wait for it without an end
            size += len(block)
            if size > max_bytes:
                raise BadAnswerError(
                    f"{self.name}: the answer to {_place(response)} is larger than {max_bytes / 2**20:.0f} MiB.",
                    service=self.name,
                )
            seconds = time.monotonic() - begun
            if seconds > self._answer_s and not (streamed and size > LEAST_BYTES_PER_S * seconds):
                raise ServiceUnavailableError(
                    f"{self.name} had not finished its answer to {_place(response)} after {seconds:.1f} s.",
                    service=self.name,
                )
            yield block

    def _refusal(self, response: httpx.Response, url: str) -> ServiceError:
        status, said = response.status_code, _said(response)
        pause = _retry_after(response.headers)
        code = response.headers.get("x-error-code", "")[:60]  # Hugging Face tells kinds of 401 and 404 apart by it
        answered = f"{status} {code}".strip() + (f": {said}" if said else "")
        about = f"{self.name} answered {url[:300]} with {answered}."
        kind: type[ServiceError] = ServiceError
        hint = ""
        if status == 429:
            wanted = f" It asks for a pause of {pause:.0f} s." if pause else ""
            kind, hint = (
                RateLimitedError,
                f"{wanted} Wait{f'. More are allowed with {self._key}' if self._key else ''}.",
            )
        elif status in _AGAIN or status >= 500:
            kind = ServiceUnavailableError
        elif status in (401, 403):
            kind, hint = AccessDeniedError, f" It needs {self._key}." if self._key else ""
        elif status in (404, 410):
            kind = NotFoundError
        return kind(about + hint, service=self.name, status=status, retry_after=pause, code=code)


def _checked(ask: Callable[[], Answer], check: Callable[[Answer], object] | None) -> Answer:
    answer = ask()
    if check is None:
        return answer
    try:
        check(answer)
    except BadAnswerError:  # a proxy's page, or a body cut without a word: once more shows whether it stays so
        answer = ask()
        check(answer)
    return answer


def _place(response: httpx.Response) -> str:
    return str(response.url).partition("?")[0][:200]


def _start(response: httpx.Response) -> int:
    """The byte at which a download begins: from `Content-Range: bytes 5-9/10` of a 206."""
    if response.status_code != 206:
        return 0
    first = response.headers.get("content-range", "").removeprefix("bytes").strip().partition("-")[0]
    return int(first) if first.isdigit() else -1


def _encoded(params: Params | None) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
        pairs += [(name, _text(each)) for each in values if each is not None]
    return pairs


def _text(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.encode("utf-8", errors="replace").decode()  # LLMs write half surrogate pairs, which nothing can encode


def _said(response: httpx.Response) -> str:
    """What the service says of a refusal, bounded: the usual JSON fields, else the beginning of the text."""
    try:
        text = next(response.iter_bytes(4096), b"").decode("utf-8", errors="replace")
    except (httpx.HTTPError, httpx.StreamError):
        return str(response.headers.get("x-error-message", ""))[:300]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return " ".join(response.headers.get("x-error-message", text if "<html" not in text.lower() else "").split())[
            :300
        ]
    if isinstance(value, dict):
        return " ".join(str(value.get("error") or value.get("message") or value.get("detail") or "").split())[:300]
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `Retry-After` (seconds or a date; RFC 9110 10.2.3) or the Hub's `RateLimit: ...;t=SECONDS`."""
    if value := headers.get("retry-after", "").strip():
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            return None
    for part in headers.get("ratelimit", "").split(";"):
        name, _, number = part.strip().partition("=")
        if name == "t" and number.isdigit():
            return float(number)
    return None
