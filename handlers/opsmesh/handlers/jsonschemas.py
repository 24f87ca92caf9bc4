"""JSON Schema, as far as the standard's own library knows it: a schema that is one, a value that
fits. Nothing is ever fetched for a `$ref`.

A schema may be a stranger's: its size has a limit, and one that could keep us busy (regular
expressions that never end, references that multiply) is tried in a process that has a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Characters of what is said of a value.
MAX_ERROR: Final = 300
#: Bytes of a schema as JSON, and how deep it may go.
MAX_SCHEMA: Final = 16 * 1024
MAX_DEPTH: Final = 24
#: Seconds that a schema of the other kind has, the start of its process included.
PATIENCE_S: Final = 5.0
#: Keys whose work has no bound that the schema's size would give.
COSTLY: Final = frozenset(
    {"pattern", "patternProperties", "$ref", "$dynamicRef", "$recursiveRef", "uniqueItems"}
)


def check(schema: Mapping[str, Any]) -> None:
    """ValueError when this is no JSON Schema, or none that is used here."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        size = len(json.dumps(schema, default=str))
        patterns = list(_patterns(schema, 0))
        if size > MAX_SCHEMA:
            raise ValueError(f"a JSON Schema of {size} bytes; {MAX_SCHEMA} are allowed")
        for pattern in patterns:
            re.compile(pattern)
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON Schema: {_at(error)}{error.message[:MAX_ERROR]}") from error
    except re.error as error:
        raise ValueError(f"no JSON Schema: a pattern is no regular expression: {error}") from error
    except RecursionError as error:
        raise ValueError(f"a JSON Schema deeper than {MAX_DEPTH} levels") from error


async def fault(schema: Mapping[str, Any], value: Any) -> str:
    """`problem`, for a schema that may be a stranger's: it takes no longer than PATIENCE_S."""
    if not any(key in COSTLY for key in _keys(schema)):
        return problem(schema, value)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "opsmesh.handlers.jsonschemas"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    asked = json.dumps([schema, value], default=str).encode(errors="replace")
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await process.communicate(asked)
        return str(json.loads(out))
    except TimeoutError:
        return f"its schema takes more than {PATIENCE_S:g} s to check, and is given up"
    except ValueError:
        return "its schema cannot be checked"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


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
    except RecursionError:
        return "its schema refers to itself without end"
    return "" if error is None else f"{_at(error)}{error.message[:MAX_ERROR]}"


def _at(error: Any) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    return f"{path}: " if path else ""


def _patterns(schema: Any, depth: int) -> Iterator[str]:
    """Every text that is read as a regular expression; ValueError for one that is too deep."""
    if depth > MAX_DEPTH:
        raise ValueError(f"a JSON Schema deeper than {MAX_DEPTH} levels")
    if isinstance(schema, Mapping):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        if isinstance(by_pattern := schema.get("patternProperties"), Mapping):
            yield from by_pattern
    inner = schema.values() if isinstance(schema, Mapping) else schema
    if isinstance(inner, str) or not hasattr(inner, "__iter__"):
        return
    for one in inner:
        yield from _patterns(one, depth + 1)


def _keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from schema
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for one in schema:
            yield from _keys(one)


if __name__ == "__main__":
    json.dump(problem(*json.load(sys.stdin)), sys.stdout)
