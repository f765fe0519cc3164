"""The JSON Schema of site.toml, generated from the intent's model, for editors."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from viacheck.model import intent
from viacheck.model.intent import Intent, OneOfSeveralAgents
from viacheck.model.intent_file import AGENTS
from viacheck.model.site_agents import AGENT_NAME, MOST_AGENTS

ONE_AGENT = ("agent", "egress")
"""The tables of a file with one agent."""


class _TomlSchema(GenerateJsonSchema):
    """A schema without null, which TOML does not have: an optional key is left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        if isinstance(generated.get("default"), dict):
            generated["default"] = {key: value for key, value in generated["default"].items() if value is not None}
        return {key: value for key, value in generated.items() if key != "default" or value is not None}


def intent_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the site file."""
    _, schema = models_json_schema(
        [(Intent, "validation"), (OneOfSeveralAgents, "validation")], by_alias=True, schema_generator=_TomlSchema
    )
    schema = {**schema["$defs"].pop(Intent.__name__), "$defs": schema["$defs"]}
    docstrings = _field_docstrings()
    for name in docstrings:
        definition = schema if name == Intent.__name__ else schema["$defs"].get(name, {})
        fields: dict[str, FieldInfo] = getattr(intent, name).model_fields if definition else {}
        inherited = [docstrings.get(base.__name__, {}) for base in reversed(getattr(intent, name).__mro__)]
        for field, text in (item for texts in inherited for item in texts.items()):
            if field in fields:
                definition["properties"][fields[field].alias or field]["description"] = text
    schema["required"] = [key for key in schema["required"] if key not in ONE_AGENT]
    schema["properties"][AGENTS] = {
        "type": "object",
        "description": "Several agents on this host, a table [agents.NAME] for each, in place of [agent] and [egress].",
        "minProperties": 1,
        "maxProperties": MOST_AGENTS,
        "propertyNames": {"pattern": f"^{AGENT_NAME.pattern}$"},
        "additionalProperties": {"$ref": f"#/$defs/{OneOfSeveralAgents.__name__}"},
    }
    schema["oneOf"] = [
        {"required": list(ONE_AGENT), "properties": {AGENTS: False}},
        {"required": [AGENTS], "properties": dict.fromkeys(ONE_AGENT, False)},
    ]
    return {"$schema": _TomlSchema.schema_dialect, **schema, "title": "viacheck site.toml"}


def _field_docstrings() -> dict[str, dict[str, str]]:
    """Return the docstring below each field, by class.

    pydantic's ``use_attribute_docstrings`` reads them whenever the classes are imported, for most of the import's time.
    """
    return {
        node.name: {
            field.target.id: inspect.cleandoc(docstring.value.value)
            for field, docstring in pairwise(node.body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
            if isinstance(docstring.value.value, str)
        }
        for node in ast.parse(inspect.getsource(intent)).body
        if isinstance(node, ast.ClassDef)
    }
