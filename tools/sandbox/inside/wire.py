"""Plain data between the judge, which runs the tests, and the worker, which runs the code that is tested.

What crosses is JSON in frames: None, numbers, text, bytes, lists, tuples, sets, dicts, ranges, decimals and fractions
by value, all else by a number that stands for it. So an object whose class calls itself equal to everything reaches
the judge as a number, never as an object with a method that the judge would trust.
"""

from __future__ import annotations

import collections
import decimal
import fractions
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["Gone", "Peer", "Record"]

MOST_BYTES = 8 * 2**20
"""Of one frame: code that answers with more has failed."""
DEPTH = 60
Reference = Callable[[Any], "dict[str, Any]"]


class Gone(BaseException):
    """The other side ended, or does not keep to the protocol.

    No `Exception`: a test that expects the code to raise something must not take the end of its process for it.
    """


class Record(tuple):  # type: ignore[type-arg]
    """A named tuple of the other side: a tuple whose values have names."""

    fields: dict[str, int]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("fields", {}):
            return self[self.fields[name]]
        raise AttributeError(name)


class Peer:
    """One end of the channel. While it waits for an answer it serves what the other end asks.

    Args:
        descriptor: of a connected stream socket.
        serve: answers a request of the other end.
        refer: what stands for a value that cannot be copied.
        resolve: the value that such a thing stands for.
    """

    def __init__(
        self,
        descriptor: int,
        serve: Callable[[dict[str, Any]], dict[str, Any]],
        refer: Reference,
        resolve: Callable[[dict[str, Any]], Any],
    ) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._serve = serve
        self._refer = refer
        self._resolve = resolve

    def send(self, message: dict[str, Any]) -> None:
        """Raises Gone, or ValueError where the message is too large or nested too deep."""
        try:
            data = json.dumps(message).encode()
        except RecursionError as error:
            raise ValueError("nested too deep to be handed over") from error
        if len(data) > MOST_BYTES:
            raise ValueError(f"{len(data)} bytes are too many to be handed over")
        try:
            self._socket.sendall(struct.pack("<I", len(data)) + data)
        except OSError as error:
            raise Gone(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """The next message. Raises Gone."""
        try:
            (size,) = struct.unpack("<I", self._read(4))
            if size > MOST_BYTES:
                raise Gone("an answer that is too large")
            message = json.loads(self._read(size))
        except (OSError, ValueError, RecursionError) as error:
            raise Gone(str(error)) from error
        if not isinstance(message, dict):
            raise Gone("no message")
        return message

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer. Raises Gone, ValueError."""
        self.send(message)
        while True:
            answer = self.receive()
            if "op" not in answer:
                return answer
            self.send(self._serve(answer))

    def serve(self) -> None:
        """Answer requests until the other end is gone."""
        while True:
            try:
                self.send(self._serve(self.receive()))
            except Gone:
                return

    def encode(self, value: Any, depth: int = DEPTH) -> Any:
        """JSON for a value. Raises ValueError where it is nested too deep, or what `refer` raises."""
        if depth == 0:
            raise ValueError("nested too deep to be handed over")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            number = int.__int__(value)
            return number if abs(number) < 2**53 else {"i": hex(number)}
        if isinstance(value, float):
            return {"f": float.hex(value)}
        for kind, tag in _SEQUENCES:
            if isinstance(value, kind):
                items = [self.encode(item, depth - 1) for item in value]
                names = getattr(type(value), "_fields", None) if tag == "t" else None
                return {tag: items} if names is None else {"n": items, "names": [str(name) for name in names]}
        if isinstance(value, dict):
            return {"d": [[self.encode(key, depth - 1), self.encode(item, depth - 1)] for key, item in value.items()]}
        if isinstance(value, bytes | bytearray):
            return {"b" if isinstance(value, bytes) else "a": value.hex()}
        if isinstance(value, complex):
            return {"c": [float.hex(value.real), float.hex(value.imag)]}
        if isinstance(value, range):
            return {"r": [self.encode(part, depth - 1) for part in (value.start, value.stop, value.step)]}
        if isinstance(value, decimal.Decimal):
            return {"D": str(value)}
        if isinstance(value, fractions.Fraction):
            return {"F": [hex(value.numerator), hex(value.denominator)]}
        return self._refer(value)

    def decode(self, data: Any) -> Any:
        """The value of such JSON. Raises ValueError or TypeError where it is none."""
        if not isinstance(data, dict):
            if data is None or isinstance(data, bool | int | str):
                return data
            raise ValueError("no value")
        tag = next(iter(data), "")
        body = data.get(tag)
        for kind, name in _SEQUENCES:
            if tag == name:
                return kind([self.decode(item) for item in body or ()])
        if tag == "n":
            record = Record(self.decode(item) for item in body or ())
            record.fields = {str(name): place for place, name in enumerate(data.get("names", ()))}
            return record
        if tag == "d":
            return {self.decode(key): self.decode(item) for key, item in body or ()}
        if tag == "r":
            return range(*(self.decode(part) for part in body or ()))
        if tag in _TEXTS:
            return _TEXTS[tag](body)
        return self._resolve(data)

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 2**20))
            if not part:
                raise Gone("the other side ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


_SEQUENCES: tuple[tuple[Any, str], ...] = (
    (list, "l"),
    (tuple, "t"),
    (set, "s"),
    (frozenset, "z"),
    (collections.deque, "q"),
)
_TEXTS: dict[str, Callable[[Any], Any]] = {
    "i": lambda body: int(body, 16),
    "f": float.fromhex,
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "c": lambda body: complex(float.fromhex(body[0]), float.fromhex(body[1])),
    "D": decimal.Decimal,
    "F": lambda body: fractions.Fraction(int(body[0], 16), int(body[1], 16)),
}
