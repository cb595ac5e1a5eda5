"""Conditions of Sigma rules as SQL for DuckDB: a backend of pySigma.

A comparison with something absent is false and not NULL, so that `not` means what Sigma means by it. Text is compared
without case unless `cased` is said. What has no exact meaning here raises an error of pySigma's, never a guess.
"""

from __future__ import annotations

import ipaddress
from typing import Any, ClassVar, Final, NoReturn

import re2
from sigma.conditions import ConditionFieldEqualsValueExpression, ConditionValueExpression
from sigma.conversion.base import TextQueryBackend
from sigma.conversion.state import ConversionState
from sigma.exceptions import SigmaFeatureNotSupportedByBackendError
from sigma.types import CompareOperators, SigmaRegularExpressionFlag, SigmaString, SpecialChars

from analytics.sigma_fields import Field, Source

_Test = ConditionFieldEqualsValueExpression
_OPERATORS: Final = {
    CompareOperators.LT: "<", CompareOperators.LTE: "<=", CompareOperators.GT: ">", CompareOperators.GTE: ">=",
    CompareOperators.NEQ: "<>",
}  # fmt: skip
_FLAGS: Final = {
    SigmaRegularExpressionFlag.IGNORECASE: "i",
    SigmaRegularExpressionFlag.MULTILINE: "m",
    SigmaRegularExpressionFlag.DOTALL: "s",
}


class LakeBackend(TextQueryBackend):
    """Makes the condition of a rule about one log source, as it stands after WHERE."""

    name: ClassVar[str] = "PacketLake"
    formats: ClassVar[dict[str, str]] = {"default": "a condition in SQL"}
    requires_pipeline: ClassVar[bool] = False
    group_expression: ClassVar[str | None] = "({expr})"
    parenthesize: bool = True
    or_token: ClassVar[str] = "OR"  # noqa: S105 — a word of SQL
    and_token: ClassVar[str] = "AND"  # noqa: S105 — a word of SQL
    not_token: ClassVar[str] = "NOT"  # noqa: S105 — a word of SQL
    eq_token: ClassVar[str] = "="  # noqa: S105 — a word of SQL

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def convert_condition_field_eq_val_str(self, cond: _Test, state: ConversionState) -> str:
        return self._string(cond, "ILIKE", cased=False)

    def convert_condition_field_eq_val_str_case_sensitive(self, cond: _Test, state: ConversionState) -> str:
        return self._string(cond, "LIKE", cased=True)

    def convert_condition_field_eq_val_num(self, cond: _Test, state: ConversionState) -> str:
        field, value = self._field(cond), _value(cond)
        number = _number(value.number)
        if field.type == "number":
            return self._test(field, f"{{}} = {number}")
        return self._test(field, f"{{}} = '{number}'")

    def convert_condition_field_eq_val_bool(self, cond: _Test, state: ConversionState) -> str:
        field, wanted = self._field(cond), "true" if _value(cond).boolean else "false"
        if field.type != "bool":
            _refuse(f"field {cond.field} is no truth value")
        return self._test(field, f"{{}} = {wanted}")

    def convert_condition_field_eq_val_re(self, cond: _Test, state: ConversionState) -> str:
        expression = _value(cond)
        flags = "".join(sorted(_FLAGS[flag] for flag in expression.flags))
        pattern = (f"(?{flags})" if flags else "") + ("" if "s" in flags else "(?-s)") + str(expression.regexp)
        try:
            re2.compile(pattern, options=_regex_options())
        except re2.error as error:
            reason = error.args[0] if error.args else error
            text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            _refuse(f"regular expression {pattern!r} is not understood by RE2: {text}")
        return self._test(self._field(cond), f"regexp_matches({{}}, {_literal(pattern)})", text=True)

    def convert_condition_field_eq_val_cidr(self, cond: _Test, state: ConversionState) -> str:
        field = self._field(cond)
        if field.type not in ("ip", "texts"):
            _refuse(f"field {cond.field} is no address, so cidr has no meaning")
        return self._test(field, f"in_net({{}}, '{_value(cond).network}')")

    def convert_condition_field_compare_op_val(self, cond: _Test, state: ConversionState) -> str:
        field, value = self._field(cond), _value(cond)
        if field.type != "number":
            _refuse(f"field {cond.field} is no number")
        return self._test(field, f"{{}} {_OPERATORS[value.op]} {_number(value.number.number)}")

    def convert_condition_field_eq_val_null(self, cond: _Test, state: ConversionState) -> str:
        return f"({self._field(cond).sql}) IS NULL"

    def convert_condition_field_exists(self, cond: _Test, state: ConversionState) -> str:
        return f"({self._field(cond).sql}) IS NOT NULL"

    def convert_condition_field_not_exists(self, cond: _Test, state: ConversionState) -> str:
        return f"({self._field(cond).sql}) IS NULL"

    def convert_condition_field_eq_field(self, cond: _Test, state: ConversionState) -> str:
        _refuse("fieldref is not supported")

    def convert_condition_field_eq_val_timestamp_part(self, cond: _Test, state: ConversionState) -> str:
        _refuse("parts of a time are not supported")

    def convert_condition_field_eq_query_expr(self, cond: _Test, state: ConversionState) -> str:
        _refuse("query expressions are not supported")

    def convert_condition_val_str(self, cond: ConditionValueExpression, state: ConversionState) -> str:
        _refuse("a value without a field (keywords) is not supported: the lake keeps fields, not log lines")

    convert_condition_val_num = convert_condition_val_str
    convert_condition_val_re = convert_condition_val_str
    convert_condition_query_expr = convert_condition_val_str

    def _string(self, cond: _Test, like: str, *, cased: bool) -> str:
        field, value = self._field(cond), cond.value
        assert isinstance(value, SigmaString)
        if value.contains_placeholder():
            _refuse(f"field {cond.field} has a placeholder (expand), which nobody fills in here")
        if field.type == "bool":
            word = str(value).lower()
            if word not in ("true", "false"):
                _refuse(f"field {cond.field} is a truth value, not {str(value)[:40]!r}")
            return self._test(field, f"{{}} = {word}")
        if not value.contains_special():
            plain = _plain(value)
            if field.type == "ip":
                plain = _address(plain)
            if field.type == "number":
                if not plain.lstrip("-").isdecimal():
                    _refuse(f"field {cond.field} is a number, not {plain[:40]!r}")
                return self._test(field, f"{{}} = {int(plain)}")
            sides = ("{}", _literal(plain)) if cased else ("lower({})", _literal(plain.lower()))
            return self._test(field, " = ".join(sides))
        pattern = "".join(_LIKE.get(part) or _escaped(str(part)) for part in value.s)
        return self._test(field, rf"{{}} {like} {_literal(pattern)} ESCAPE '\'", text=True)

    def _field(self, cond: _Test) -> Field:
        found = self._source.fields.get(cond.field)
        if found is None:
            _refuse(f"field {cond.field} has no column in {self._source.table}")
        return found

    def _test(self, field: Field, test: str, *, text: bool = False) -> str:
        """The test of a field, false when it is absent; of a list: whether any of it fulfils the test."""
        if field.type == "texts":
            inner = test.replace("{}", "x", 1)
            return f"coalesce(len(list_filter({field.sql}, lambda x: {inner})) > 0, false)"
        column = f"({field.sql})" + ("::VARCHAR" if text and field.type in ("number", "bool") else "")
        return f"coalesce({test.replace('{}', column, 1)}, false)"


_LIKE: Final[dict[Any, str]] = {SpecialChars.WILDCARD_MULTI: "%", SpecialChars.WILDCARD_SINGLE: "_"}


def _regex_options() -> Any:
    """As DuckDB has them; silent."""
    options = re2.Options()
    options.log_errors = False
    return options


def _value(cond: _Test) -> Any:
    """The value, which the library has told apart by its type already."""
    return cond.value


def _plain(value: SigmaString) -> str:
    return "".join(str(part) for part in value.s)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def _literal(text: str) -> str:
    if "\0" in text:
        _refuse("a text with a NUL character is not supported")
    return "'" + text.replace("'", "''") + "'"


def _number(value: float) -> str:
    if isinstance(value, float) and not value.is_integer():
        return repr(value)
    return str(int(value))


def _address(text: str) -> str:
    """An address as the lake writes it; other text as it is."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _refuse(reason: str) -> NoReturn:
    raise SigmaFeatureNotSupportedByBackendError(reason)
