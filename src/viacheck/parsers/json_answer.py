"""One JSON object of an engine's answer, read by the names and types of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")


class NotAnEngineAnswer(ValueError):
    """The answer is not a Docker engine's; the message names the field that is missing or has another type."""


class JsonAnswer:
    """One JSON object of an answer; null stands for an empty field. Methods raise :class:`NotAnEngineAnswer`."""

    def __init__(self, value: Any, name: str) -> None:
        """``name`` is the object's in messages."""
        if not isinstance(value, Mapping):
            raise NotAnEngineAnswer(f"{name} is not an object")
        self._value = value
        self._name = name

    def _get(self, key: str, kind: type[T], default: T) -> T:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise NotAnEngineAnswer(f"{self._name} has a {key} of another type")
        return value

    def text(self, key: str) -> str:
        """Return a text; empty without the field."""
        return self._get(key, str, "")

    def required_text(self, key: str) -> str:
        """Return a text that must be there."""
        text = self.text(key)
        if not text:
            raise NotAnEngineAnswer(f"{self._name} has no {key}")
        return text

    def number(self, key: str) -> int:
        """Return a whole number; 0 without the field."""
        return self._get(key, int, 0)

    def flag(self, key: str) -> bool:
        """Return a truth value; False without the field."""
        return self._get(key, bool, False)

    def part(self, key: str) -> JsonAnswer:
        """Return an object inside this one; empty without the field."""
        return JsonAnswer(self._get(key, cast(type[Mapping[str, Any]], Mapping), {}), f"{self._name}'s {key}")

    def parts(self, key: str) -> list[JsonAnswer]:
        """Return the objects of a list."""
        values = self._get(key, list, [])
        return [JsonAnswer(value, f"an element of {self._name}'s {key}") for value in values]

    def parts_by_name(self, key: str) -> dict[str, JsonAnswer]:
        """Return the objects inside an object by their names."""
        values = self._get(key, cast(type[Mapping[str, Any]], Mapping), {})
        return {
            str(name): JsonAnswer({} if value is None else value, f"{self._name}'s {key}")
            for name, value in values.items()
        }

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the texts of a list."""
        values = self._get(key, list, [])
        if not all(isinstance(value, str) for value in values):
            raise NotAnEngineAnswer(f"{self._name}'s {key} holds something other than text")
        return tuple(values)

    def options(self, key: str) -> dict[str, str]:
        """Return the texts inside an object by their names."""
        values = self._get(key, cast(type[Mapping[str, Any]], Mapping), {})
        if not all(isinstance(name, str) and isinstance(value, str) for name, value in values.items()):
            raise NotAnEngineAnswer(f"{self._name}'s {key} holds something other than text")
        return dict(values)
