"""Captures of others through the whole engine: attacks are named, the rest stays quiet. See docs/detection.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.detect_corpus import DOCUMENTED, EXPLAINED, LOUD_SHARE, captures, detect, loud, missing
from tests.commands import ROOT

CORPUS = ROOT.parent / "shared" / "corpus"
_EVERY = 12  # of the captures without an attack; the command takes all

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}"),
]


def test_captures_of_others__attacks_named_and_the_rest_quiet(tmp_path: Path) -> None:
    files = captures(CORPUS)
    attacks = [path for path in files if path.name in DOCUMENTED]
    others = [path for path in files if path.name not in DOCUMENTED]
    raised = detect([*attacks, *others[::_EVERY]], tmp_path / "lake")
    assert len(attacks) == len(DOCUMENTED)
    assert missing(raised) == []
    assert len(others) > 500
    assert [name for name in loud(raised) if name not in EXPLAINED] == []
    assert len(loud(raised)) <= LOUD_SHARE * len(others[::_EVERY])


def test_document__has_every_capture_that_is_judged() -> None:
    text = (ROOT / "docs" / "detection.md").read_text()
    for name in (*DOCUMENTED, *EXPLAINED):
        assert f"`{name}`" in text, name
