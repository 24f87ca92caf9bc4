"""JSON Schemas that a stranger wrote, used on values that another stranger wrote.

The one rule: neither may cost more than a moment. A schema can ask for exponential work, and its
patterns for backtracking without end, on the loop that everything runs on. So every keyword counts,
patterns are matched by an engine without backtracking, and what it cannot read is not checked.
Nothing is fetched: a `$ref` is answered within its own document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

import msgspec

#: Keywords looked at in one check.
MAX_STEPS: Final = 20_000
#: Bytes of JSON of a schema.
MAX_SCHEMA: Final = 256 * 1024
#: Items whose being different is looked at, which takes the square of their number.
MAX_UNIQUE: Final = 500
#: Characters of an error.
MAX_TEXT: Final = 300


class Unusable(ValueError):
    """The schema is none, or asks for too much."""


def wrong(schema: Mapping[str, Any], value: Any, *, what: str) -> str:
    """What of `value` does not fit, named as a part of `what`; empty when all does. Unusable when
    that cannot be said."""
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry

    if len(msgspec.json.encode(schema)) > MAX_SCHEMA:
        raise Unusable(f"the schema is over {MAX_SCHEMA} bytes")
    _left.append(MAX_STEPS)
    try:
        plain = _without_patterns(dict(schema))
        validator = _bounded(validator_for(plain))(plain, registry=Registry())
        found = best_match(validator.iter_errors(value))
    except Unusable:
        raise
    except Exception as error:  # a schema may be anything, and break anything
        raise Unusable(f"the schema cannot be used: {type(error).__name__}") from error
    finally:
        _left.pop()
    if found is None:
        return ""
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in found.absolute_path
    )
    said = " ".join(found.message.split())
    said = said if len(said) <= MAX_TEXT else said[: MAX_TEXT - 1] + "…"
    return f"{what} {place[1:]!r}: {said}" if place else said


#: What is left to the check under way. No check awaits, so the last one is the one.
_left: list[int] = []


@cache
def _bounded(kind: Any) -> Any:
    """The validator class with keywords that count."""
    from jsonschema.validators import extend

    keywords = {name: _counted(check) for name, check in kind.VALIDATORS.items()}
    keywords["pattern"] = _counted(_pattern)
    keywords["uniqueItems"] = _counted(_unique(kind.VALIDATORS.get("uniqueItems")))
    return extend(kind, keywords)


def _counted(check: Callable[..., Any]) -> Callable[..., Any]:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _left[-1] -= 1
        if _left[-1] < 0:
            raise Unusable(f"the schema asks for more than {MAX_STEPS} looks")
        yield from check(validator, value, instance, schema) or ()

    return counted


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and isinstance(pattern, str):
        matches = _matcher(pattern)
        if matches is not None and not matches(instance):
            yield ValidationError(f"{instance[:80]!r} does not match {pattern[:80]!r}")


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Callable[[str], bool] | None:
    """Whether a text matches, in linear time; None for a pattern that only backtracking reads."""
    from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

    try:
        engine = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        return None

    def matches(text: str) -> bool:
        try:
            engine.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches


def _unique(check: Callable[..., Any] | None) -> Callable[..., Any]:
    def unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if check is not None and isinstance(instance, list) and len(instance) <= MAX_UNIQUE:
            yield from check(validator, wanted, instance, schema) or ()

    return unique


def _without_patterns(value: Any) -> Any:
    """The schema without keys that are patterns: less is checked, and nothing wrongly."""
    if isinstance(value, list):
        return [_without_patterns(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = {"patternProperties"} if isinstance(value.get("patternProperties"), dict) else set()
    if dropped:  # what stands beside it says what holds for all others
        dropped |= {"additionalProperties", "unevaluatedProperties"}
    return {key: _without_patterns(item) for key, item in value.items() if key not in dropped}
