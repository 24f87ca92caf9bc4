"""JSON Schema, as far as the standard's own library knows it: a schema that is one, a value that
fits. Nothing is ever fetched for a `$ref`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Characters of what is said of a value.
MAX_ERROR: Final = 300


def check(schema: Mapping[str, Any]) -> None:
    """ValueError when this is no JSON Schema."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON Schema: {_at(error)}{error.message[:MAX_ERROR]}") from error


def problem(schema: Mapping[str, Any], value: Any) -> str:
    """What is wrong with the value, the most telling first; "" when it fits."""
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # the library's default fetches what a $ref names
    registry: Registry[Any] = Registry()
    try:
        validator = validator_for(schema)(schema, registry=registry)
        error = best_match(validator.iter_errors(value))
    except Unresolvable as wrong:
        return f"the schema refers to {wrong.ref[:MAX_ERROR]}, which is not in it"
    return "" if error is None else f"{_at(error)}{error.message[:MAX_ERROR]}"


def _at(error: Any) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    return f"{path}: " if path else ""
