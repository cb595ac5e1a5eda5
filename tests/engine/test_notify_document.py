"""docs/alerts.md names a test for every feature of the first version; each of them is there."""

from __future__ import annotations

import re

from tests.commands import ROOT

_NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_first_version__every_feature_has_a_test() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text()
    table = text.partition("## What the first version had")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        named = _NAMED.findall(row)
        assert named, row
        for path, test in named:
            assert f"def {test}" in (ROOT / "tests" / path).read_text(), (path, test)
