"""What every page of viacheck has in common: nothing loaded, nothing run, every value escaped and made visible.

The style sheet is in the file, and named to the browser by its hash in a content security policy that allows nothing
else (CSP level 3).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.text import counted, escape_unprintable

TEMPLATES = Path(__file__).parent / "templates"
TEXT_SHOWN = 6_000
"""Characters of one text: an output, a file, a value."""


def environment() -> Environment:
    """The templates' environment: escaping always on, control characters shown, nothing undefined."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        extensions=["jinja2.ext.loopcontrols"],
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        auto_reload=False,
    )
    made.filters.update(block=_block, counted=counted)
    return made


def style() -> dict[str, Any]:
    """The style sheet and its hash, as the templates take them."""
    text = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {
        "style": Markup(text),  # noqa: S704 - the style sheet is this package's own
        "style_hash": f"'sha256-{digest}'",
    }


def _shown(value: Any) -> Any:
    """Pass every value of the template on its way to the page; what is markup already stays."""
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return escape_unprintable(_cut(value))


def _block(text: str) -> Markup:
    """Let a text of several lines keep its lines and tabs."""
    return escape(escape_unprintable(_cut(text), keep="\n\t"))


def _cut(text: str) -> str:
    if len(text) <= TEXT_SHOWN:
        return text
    head, tail = TEXT_SHOWN * 3 // 4, TEXT_SHOWN // 4
    return f"{text[:head]}\n… {len(text) - head - tail:,} characters left out, result.json has them …\n{text[-tail:]}"
