"""What Linux offers and Python does not: swapping two directories, priorities, the end of a parent."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Final

AT_FDCWD: Final = -100  # linux/fcntl.h
RENAME_EXCHANGE: Final = 2  # linux/fs.h
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
IOPRIO_WHO_PROCESS: Final = 1
IOPRIO_IDLE: Final = 3 << 13  # linux/ioprio.h: the class, above 13 bits of priority
UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}  # numbers of the system call


def exchange(a: Path, b: Path) -> None:
    """Have two directories of a file system change places, at once. Raises OSError, of UNSUPPORTED if it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, "this C library has no renameat2", str(a))
    if libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (renameat2)", str(a))


def yield_to_others(niceness: int) -> None:
    """Be as nice as that, 0 to 19, to all others.

    The leader of a session says so for its session, too: where the kernel shares the processor by sessions
    (sched_autogroup), niceness counts only within one, sched(7).
    """
    with contextlib.suppress(OSError):
        os.nice(max(0, niceness - os.nice(0)))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


def lowest_priority() -> None:
    """Use the processor and the disk only when nobody else wants them."""
    yield_to_others(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE)


def stop_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends (for a threaded parent: the thread that started us)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel knew
        sys.exit(0)
