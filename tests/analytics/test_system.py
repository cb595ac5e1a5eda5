"""What is asked of the kernel, looked up in /proc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

_SHARED = Path("/proc/sys/kernel/sched_autogroup_enabled")
_CODE = """
import os
from pathlib import Path
from analytics.system import yield_to_others
yield_to_others(10)
print(os.nice(0), Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.parametrize("leads", [True, False])
def test_yield_to_others__session_too_when_it_is_ours(leads: bool) -> None:
    """Where sessions share the processor, a nice process in a session of its own would take as much as the capture."""
    if not _SHARED.exists() or _SHARED.read_text().strip() != "1":
        pytest.skip("this kernel does not share the processor by sessions (sched_autogroup)")
    outer = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_CODE!r}], check=True)",
    ]
    words = [sys.executable, "-c", _CODE] if leads else outer
    done = subprocess.run(words, cwd=ROOT, start_new_session=True, capture_output=True, text=True, check=True)
    nice, session = done.stdout.split()
    assert (nice, session) == ("10", "10" if leads else "0")
