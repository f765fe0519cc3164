"""The base of everything in result.json: plain data, unknown keys refused; and what is wrong with a file of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Plain(BaseModel):
    """A value of result.json."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


def first_mistake(error: ValidationError, whole: str = "the file as a whole") -> str:
    """Return the place and the text of the first mistake; ``whole`` is the place of one that is at no key."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
