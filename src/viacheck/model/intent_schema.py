"""The JSON Schema of site.toml, generated from the intent's model, for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from viacheck.model.intent import Intent


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
    schema = Intent.model_json_schema(by_alias=True, schema_generator=_TomlSchema)
    return {"$schema": _TomlSchema.schema_dialect, **schema, "title": "viacheck site.toml"}
