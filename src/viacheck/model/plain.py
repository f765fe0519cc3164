"""The base of everything in result.json: plain data, unknown keys refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Plain(BaseModel):
    """A value of result.json."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
