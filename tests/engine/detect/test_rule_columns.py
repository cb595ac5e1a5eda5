"""What rules read of applications' rows is what they say they read."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from engine.detect.rules import make_rules
from engine.detect.rules.base import Rule

_READ = re.compile(r"""\brow(?:\.get\(|\[)"(\w+)\"""")
_SAYING = [type(rule) for rule in make_rules({}) if rule.columns]


@pytest.mark.parametrize("rule", _SAYING, ids=lambda rule: rule.name)
def test_columns__are_those_that_the_rule_reads(rule: type[Rule[Any]]) -> None:
    read = set(_READ.findall(inspect.getsource(rule.row)))
    assert read == set(rule.columns)
