"""Every SQL block that the documents show runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import analytics
from analytics.shell import run_query
from tests.analytics.small_lake import make_lake, segment
from tests.commands import ROOT


def _documented() -> list[str]:
    """The statements of ```sql blocks in docs/queries.md, and of `engine sql "..."` in README's shell blocks."""
    blocks = re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs/queries.md").read_text(), re.M | re.S)
    found = [line.strip() for block in blocks for line in block.split(";\n") if line.strip()]
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["engine", "sql"]:
                found.append(words[2])
    return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_lake(tmp_path_factory.mktemp("documents"), "10.0.0.1", "93.184.216.34")
    segment(root, "flows", [{}])
    segment(root, "dns", [{"query": "a.example.com", "qtype": "A", "answers": ["93.184.216.34"]}])
    segment(root, "tls", [{"ja4": "t13d", "sni": "a.example.com"}])
    segment(root, "capture_stats", [{}])
    return root


@pytest.mark.parametrize("sql", _documented())
def test_documented_sql__runs(lake: Path, sql: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_query(lake, sql)


def test_documents__show_every_view(lake: Path) -> None:
    text = "\n".join(_documented())
    with analytics.connect(lake) as con:
        views = [row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()]
    questions = [v for v in views if f"### {v}\n" in (ROOT / "docs/queries.md").read_text()]
    assert len(questions) >= 13
    assert [v for v in questions if not re.search(rf"\b{v}(_between)?\b", text)] == []
