"""The frame of every HTML page: it loads nothing, runs nothing, and escapes every value.

The style sheet is in the file, and a content security policy (CSP level 3) allows it by its hash and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from base64 import b64encode
from functools import cache
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined, nodes
from jinja2.bccache import Bucket
from jinja2.compiler import CodeGenerator, Frame
from markupsafe import Markup, escape

from reports.text import counted, escape_unprintable

TEMPLATES = Path(__file__).parent / "templates"
TEXT_SHOWN = 6_000
"""Characters shown of one text: an output, a file, a value."""


_NEEDS_ESCAPING = re.compile("[&<>'\"]").search


class _OneCallGenerator(CodeGenerator):
    """Compiles each output of a template to one call, which finalizes and escapes: a page has thousands of outputs.

    Where a Jinja2 no longer asks these methods, it escapes by itself, and pages take a quarter longer.
    """

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if frame.eval_ctx.autoescape and not frame.eval_ctx.volatile:
            self.write("environment.escaped(")
        else:
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if frame.eval_ctx.autoescape and not frame.eval_ctx.volatile:
            self.write(")")
        else:
            super()._output_child_post(node, frame, finalize)


class _Environment(Environment):
    code_generator_class = _OneCallGenerator

    @staticmethod
    def escaped(value: Any) -> str:
        """Return an output of a template as HTML."""
        if type(value) is not str or len(value) > TEXT_SHOWN or not value.isprintable():
            value = _shown(value)
        return value if type(value) is str and not _NEEDS_ESCAPING(value) else escape(value)


class _ByteCode(FileSystemBytecodeCache):
    """Keeps compiled templates: to compile those of a page takes 0.2 s of CPU time, to load them 5 ms."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        # A page is written on a full or read-only disk, too.
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def _byte_code() -> FileSystemBytecodeCache | None:
    """Return the store of compiled templates, beside the byte code of a checkout's Python files; None elsewhere.

    Jinja2 compares the template's text and Python's version. What else decides the compiled text is in the file's
    name: Jinja2's version and this folder's modules, whose filters Jinja2 applies to constants as it compiles.
    """
    if sys.pycache_prefix is None or sys.dont_write_bytecode:
        return None
    folder = os.path.dirname(cache_from_source(str(TEMPLATES / "template.py")))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    compiler = hashlib.sha256(metadata.version("jinja2").encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        compiler.update(module.read_bytes())
    return _ByteCode(folder, f"%s.{compiler.hexdigest()[:16]}.jinja2")


@cache
def environment() -> Environment:
    """Return the templates' environment, which compiles each template once.

    Escaping is always on, control characters are escaped, and undefined names are refused.
    """
    jinja = _Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        extensions=["jinja2.ext.loopcontrols"],
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        auto_reload=False,
        bytecode_cache=_byte_code(),
    )
    jinja.filters.update(block=_block, counted=counted)
    return jinja


@cache
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
