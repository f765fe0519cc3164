"""The frame of every HTML page: it loads nothing, runs nothing, and escapes every value.

The style sheet is in the file, and a content security policy (CSP level 3) allows it by its hash and nothing else.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.text import counted, escape_unprintable

TEMPLATES = Path(__file__).parent / "templates"
TEXT_SHOWN = 6_000
"""Characters shown of one text: an output, a file, a value."""


@cache
def environment() -> Environment:
    """Return the templates' environment, which compiles each template once.

    Escaping is always on, control characters are escaped, and undefined names are refused.
    """
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        extensions=["jinja2.ext.loopcontrols"],
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        auto_reload=False,
    )
    jinja.filters.update(block=_block, counted=counted)
    return jinja


def style() -> dict[str, Any]:
    """Return the style sheet and its hash, as the templates take them."""
    text = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {
        "style": Markup(text),  # noqa: S704 - the style sheet is this package's own
        "style_hash": f"'sha256-{digest}'",
    }


def _shown(value: Any) -> Any:
    """Escape a value of the template on its path to the page; markup stays as it is."""
    if type(value) is str and len(value) <= TEXT_SHOWN and value.isprintable():
        return value
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return escape_unprintable(_cut(value))


def _block(text: str) -> Markup:
    """Escape a text of several lines, and keep its lines and tabs."""
    return escape(escape_unprintable(_cut(text), keep="\n\t"))


def _cut(text: str) -> str:
    if len(text) <= TEXT_SHOWN:
        return text
    head, tail = TEXT_SHOWN * 3 // 4, TEXT_SHOWN // 4
    return f"{text[:head]}\n… {len(text) - head - tail:,} characters left out, result.json has them …\n{text[-tail:]}"
