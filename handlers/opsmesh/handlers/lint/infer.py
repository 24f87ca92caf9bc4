"""One walk through an expression's tree for one kind of event: what each part can be, and what is
wrong with it.

A part that cannot be reached for this event (`event.topic == "other" && …`) is not looked at, and
what `has(…)` asked for is there. What nothing is known of is right.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from opsmesh.handlers.lint import cel, functions, kinds
from opsmesh.handlers.lint.kinds import Type
from opsmesh.handlers.lint.world import UNKNOWN, Problem, Seen, World, facts, mended, told
from opsmesh.schemas.nearest import nearest


class Walk:
    """The problems of one expression in one world, and the places that were reached."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.problems: list[Problem] = []
        self.reached: set[int] = set()

    def see(self, node: cel.Node, given: frozenset[str] = frozenset()) -> Seen:
        """What the node is, where the paths in `given` are known to be there."""
        self.reached.add(node.at)
        match node:
            case cel.Literal():
                return Seen(type=_kind(node.kind), value=node.value)
            case cel.Name():
                return Seen(
                    type=self._world.names.get(node.name, kinds.ANY),
                    value=self._world.known.get(node.name, UNKNOWN),
                )
            case cel.Member():
                return self._member(node, given)
            case cel.Index():
                self.see(node.key, given)
                return Seen(type=self.see(node.target, given).type.item or kinds.ANY)
            case cel.Call():
                return self._call(node, given)
            case cel.Unary():
                return self._unary(node, given)
            case cel.Binary(op="&&" | "||"):
                return self._logic(node, given)
            case cel.Binary():
                return self._operator(node, given)
            case cel.Choice():
                return self._choice(node, given)
            case cel.Listing():
                found = [self.see(item, given) for item in node.items]
                constant = all(one.value is not UNKNOWN for one in found)
                return Seen(
                    type=kinds.LIST, value=[one.value for one in found] if constant else UNKNOWN
                )
        for part in cel.children(node):
            self.see(part, given)
        return Seen(type=kinds.MAP)

    def _member(self, node: cel.Member, given: frozenset[str]) -> Seen:
        target = self.see(node.target, given).type
        path = cel.path(node)
        found = self._field(node, target, there=path in given)
        value = UNKNOWN if path is None else self._world.known.get(path, UNKNOWN)
        return Seen(type=found, value=value)

    def _field(self, node: cel.Member, target: Type, *, there: bool, asked: bool = False) -> Type:
        if target.fields is not None:
            if node.field in target.fields:
                return target.fields[node.field]
            if target.lacks and not there:
                self.problems.append(
                    Problem(
                        at=node.at,
                        code="asked" if asked else "missing",
                        message=target.lacks.format(repr(target.prefix + node.field)),
                        field=node.field,
                        known=tuple(target.fields),
                        owner=target.owner,
                        sure=not asked,
                    )
                )
            return kinds.ANY
        if target.never("map"):
            if target.kinds != kinds.NULL.kinds:
                self._wrong(
                    node, "member", f"{told(node.target, target)}, which has no field {node.field}"
                )
            return kinds.ANY
        return target.item or kinds.ANY

    def _call(self, node: cel.Call, given: frozenset[str]) -> Seen:
        if node.name == "last" and node.target is None:
            first = node.args[0] if node.args else None
            topic = first.value if isinstance(first, cel.Literal) else ""
            return Seen(type=self._world.last(topic))
        if node.name == "has" and node.target is None:
            for arg in node.args:
                if isinstance(arg, cel.Member):
                    self.reached.add(arg.at)
                    holder = self.see(arg.target, given).type
                    self._field(arg, holder, there=cel.path(arg) in given, asked=True)
            return Seen(type=kinds.BOOL)
        target = self.see(node.target, given) if node.target is not None else None
        if functions.unknown(node.name, method=target is not None):
            near = nearest(node.name, functions.NAMES)
            hint = f"did you mean {near}()?" if near else ""
            self._wrong(node, "function", f"CEL has no function {node.name}()", hint=hint)
            for arg in node.args:
                self.see(arg, given)
            return Seen()
        if target is not None and node.target is not None:
            self._taken(node, node.target, target.type)
            if node.name in functions.MACROS:
                return self._macro(node, target.type, given)
        args = [self.see(arg, given) for arg in node.args]
        if target is None and node.name == "size" and node.args:
            self._taken(node, node.args[0], args[0].type)
        if node.name in functions.TEXT_METHODS and target is not None:
            for arg, found in zip(node.args, args, strict=True):
                if found.type.never("text"):
                    self._wrong(
                        arg, "argument", f"{node.name}() takes a text; {told(arg, found.type)}"
                    )
        self._constant(node, args)
        value = UNKNOWN if target is None else _answer(node.name, target, args)
        return Seen(type=functions.gives(node.name), value=value)

    def _constant(self, node: cel.Call, args: list[Seen]) -> None:
        value = args[0].value if len(args) == 1 and node.name in functions.CONSTANTS else UNKNOWN
        if isinstance(value, str) and functions.unreadable(node.name, value):
            what, hint = functions.CONSTANTS[node.name]
            shown = json.dumps(value, ensure_ascii=False)
            self._wrong(node.args[0], "constant", f"{shown} is no {what}", hint=hint)

    def _taken(self, node: cel.Call, target: cel.Node, found: Type) -> None:
        takes = functions.takes(node.name)
        if takes is None or not found.never(*takes):
            return
        hint = ""
        if node.name == "contains" and found.only("list", "null"):
            hint = f"write it as: … in {cel.path(target) or 'list'}"
        elif node.name in functions.TEXT_METHODS and found.only("int", "float", "bool", "null"):
            hint = f"string({cel.path(target) or '…'}) makes a text of it"
        wanted = replace(found, kinds=frozenset(takes)).spoken
        self._wrong(
            node, "method", f"{node.name}() is for {wanted}; {told(target, found)}", hint=hint
        )

    def _macro(self, node: cel.Call, target: Type, given: frozenset[str]) -> Seen:
        item = kinds.TEXT if target.only("map") else target.item or kinds.ANY
        bound = node.args[0] if node.args else None
        if isinstance(bound, cel.Name):
            inner = Walk(
                replace(
                    self._world,
                    names={**self._world.names, bound.name: item},
                    known={
                        path: value
                        for path, value in self._world.known.items()
                        if path.partition(".")[0] != bound.name
                    },
                )
            )
            for arg in node.args[1:]:
                inner.see(arg, given)
            self.problems += inner.problems
            self.reached |= inner.reached
        found = functions.gives(node.name)
        return Seen(type=replace(found, item=target.item) if node.name == "filter" else found)

    def _unary(self, node: cel.Unary, given: frozenset[str]) -> Seen:
        found = self.see(node.operand, given)
        if node.op == "!":
            self._truth(node.operand, found.type)
            value = not found.value if isinstance(found.value, bool) else UNKNOWN
            return Seen(type=kinds.BOOL, value=value)
        if found.type.never(*kinds.NUMBERS, "duration"):
            self._wrong(node, "operator", f"- wants a number; {told(node.operand, found.type)}")
        number = isinstance(found.value, int | float) and not isinstance(found.value, bool)
        return Seen(type=found.type, value=-found.value if number else UNKNOWN)

    def _logic(self, node: cel.Binary, given: frozenset[str]) -> Seen:
        # `a && b` is false when either is, and an error of the other does not matter
        end = node.op == "||"
        before, reached = len(self.problems), set(self.reached)
        left = self.see(node.left, given | facts(node.right, not end))
        self._truth(node.left, left.type)
        if left.value is end:
            return Seen(type=kinds.BOOL, value=end)
        between, both = len(self.problems), set(self.reached)
        right = self.see(node.right, given | facts(node.left, not end))
        self._truth(node.right, right.type)
        if right.value is end:
            del self.problems[before:between]
            self.reached = reached | (self.reached - both) | {node.right.at}
            return Seen(type=kinds.BOOL, value=end)
        certain = left.value is not UNKNOWN and right.value is not UNKNOWN
        return Seen(type=kinds.BOOL, value=not end if certain else UNKNOWN)

    def _choice(self, node: cel.Choice, given: frozenset[str]) -> Seen:
        condition = self.see(node.condition, given)
        self._truth(node.condition, condition.type)
        yes, no = Seen(), Seen()
        if condition.value is not False:
            yes = self.see(node.yes, given | facts(node.condition, True))
        if condition.value is not True:
            no = self.see(node.no, given | facts(node.condition, False))
        if condition.value is True or condition.value is False:
            return yes if condition.value else no
        return Seen(type=yes.type if yes.type == no.type else kinds.ANY)

    def _operator(self, node: cel.Binary, given: frozenset[str]) -> Seen:
        left, right = self.see(node.left, given), self.see(node.right, given)
        if node.op in ("==", "!="):
            return self._equality(node, left, right)
        if node.op == "in":
            return self._inside(node, left, right)
        if node.op in ("<", "<=", ">", ">="):
            if not functions.ordered(left.type, right.type):
                self._mismatch(node, left, right, f"{node.op} has no answer")
            return Seen(type=kinds.BOOL)
        found = functions.arithmetic(node.op, left.type, right.type)
        if found is None:
            self._mismatch(node, left, right, f"{node.op} has no answer")
        elif {left.type.kinds, right.type.kinds} == {kinds.INT.kinds, kinds.FLOAT.kinds}:
            self.problems.append(
                Problem(
                    at=node.at,
                    code="mixed",
                    message=f"{node.op} of a whole number and one with a fraction has no answer",
                    hint="make both the same: double(…), or 2.0 for 2",
                    sure=False,
                )
            )
        return Seen(type=found or kinds.ANY)

    def _equality(self, node: cel.Binary, left: Seen, right: Seen) -> Seen:
        same = node.op == "=="
        if not functions.comparable(left.type, right.type):
            self._mismatch(node, left, right, f"{node.op} is {'never' if same else 'always'} true")
            return Seen(type=kinds.BOOL)
        for side, one, other in ((node.left, left, right), (node.right, right, left)):
            if not isinstance(other.value, str):
                continue
            if cel.path(side) == "event.topic":
                if not self._covered(node, other.value):
                    return Seen(type=kinds.BOOL, value=not same)
            elif one.value is UNKNOWN and self._never(node, side, one.type, other.value):
                return Seen(type=kinds.BOOL)
        if left.value is UNKNOWN or right.value is UNKNOWN:
            return Seen(type=kinds.BOOL)
        return Seen(type=kinds.BOOL, value=(left.value == right.value) is same)

    def _inside(self, node: cel.Binary, left: Seen, right: Seen) -> Seen:
        if right.type.never("list", "map"):
            path = cel.path(node.right) or "text"
            hint = f"write it as: {path}.contains(…)"
            self._wrong(
                node,
                "inside",
                f"'in' wants a list or a map; {told(node.right, right.type)}",
                hint=hint if right.type.only("text", "null") else "",
            )
            return Seen(type=kinds.BOOL)
        item = right.type.item
        if right.type.only("list") and item and not functions.comparable(left.type, item):
            self._wrong(
                node,
                "inside",
                f"{told(node.left, left.type)}, the list holds {item.spoken}: 'in' is never true",
            )
        if not isinstance(right.value, list):
            return Seen(type=kinds.BOOL)
        possible = []
        for part, value in zip(
            node.right.items if isinstance(node.right, cel.Listing) else (),
            right.value,
            strict=False,
        ):
            if isinstance(value, str):
                if self._never(part, node.left, left.type, value):
                    continue
                if cel.path(node.left) == "event.topic" and not self._covered(part, value):
                    continue
            if not functions.comparable(left.type, kinds.of_value(value)):
                said = told(node.left, left.type)
                self._wrong(part, "inside", f"{said}, and this is {kinds.of_value(value).spoken}")
                return Seen(type=kinds.BOOL)
            possible.append(value)
        if not possible:
            return Seen(type=kinds.BOOL, value=False)
        value = UNKNOWN if left.value is UNKNOWN else left.value in possible
        return Seen(type=kinds.BOOL, value=value)

    def _never(self, node: cel.Node, side: cel.Node, found: Type, value: str) -> bool:
        """Complain of a text that is none of the few that a field can be."""
        if not found.values or value in found.values:
            return False
        near = nearest(value, found.values)
        shown = json.dumps(value, ensure_ascii=False)
        self._wrong(
            node,
            "values",
            f"{cel.path(side)} is never {shown}; it is one of {', '.join(found.values)}",
            hint=f"did you mean {near!r}?" if near else "",
        )
        return True

    def _covered(self, node: cel.Node, topic: str) -> bool:
        if self._world.covers(topic):
            return True
        self._wrong(node, "topic", f"'on' does not listen to {topic}", sure=False)
        return False

    def _truth(self, node: cel.Node, found: Type) -> None:
        if found.never("bool"):
            self._wrong(node, "truth", f"{told(node, found)}, not true or false")

    def _mismatch(self, node: cel.Binary, left: Seen, right: Seen, then: str) -> None:
        said = f"{told(node.left, left.type)}, and {told(node.right, right.type)}: {then}"
        self._wrong(node, "types", said, hint=mended(left, right) or mended(right, left))

    def _wrong(
        self, node: cel.Node, code: str, message: str, *, hint: str = "", sure: bool = True
    ) -> None:
        self.problems.append(Problem(at=node.at, code=code, message=message, hint=hint, sure=sure))


def _kind(kind: str) -> Type:
    return Type(kinds=frozenset({kind}))


def _answer(name: str, target: Seen, args: list[Seen]) -> Any:
    """The answer of a text's method where all is constant."""
    if len(args) != 1 or not (isinstance(target.value, str) and isinstance(args[0].value, str)):
        return UNKNOWN
    text, part = target.value, args[0].value
    answers = {
        "startsWith": text.startswith(part),
        "endsWith": text.endswith(part),
        "contains": part in text,
    }
    return answers.get(name, UNKNOWN)
