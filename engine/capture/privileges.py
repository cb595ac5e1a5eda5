"""Giving up root: which account the engine becomes once its interfaces are open, and making sure it did.

Credentials belong to threads in Linux. glibc sends setuid and its kin to all threads, but capability sets, the
bounding set change for the calling thread only: `drop` should run before other threads start (numpy's BLAS starts
some when it is imported, unless OPENBLAS_NUM_THREADS=1; pyarrow starts one), and it reads every thread's status
afterwards. Becoming another uid empties the capabilities of all threads, and no_new_privs is sent to all; so threads
that exist already prevent only the case that keeps uid 0.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import socket
import stat
import struct
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import CaptureError, ConfigError, StoreError

SERVICE_ACCOUNTS: Final = ("packetlake", "nobody")  # tried in this order when plain root starts the engine

# linux/prctl.h, linux/capability.h
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
# linux/seccomp.h; numbers of seccomp(2) by machine.
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277, "ppc64le": 358}
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_ALLOW_ALL: Final = struct.pack("@HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
# Run by the candidate account itself, so that groups, ACLs and mount options all count. Arguments: "r/path" ...
_PROBE: Final = """
import os, sys
for word in sys.argv[1:]:
    mode, path = word[0], word[1:]
    wanted = {"r": os.R_OK, "w": os.W_OK, "x": 0}[mode] | (os.X_OK if os.path.isdir(path) else 0)
    if not os.access(path, wanted):
        sys.exit(path)
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the engine becomes. `reason` says why uid 0 is kept, when it is."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    reason: str = ""


def can_capture() -> bool:
    """True when this process may open a packet socket (root, CAP_NET_RAW, or root of its user namespace)."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError:
        return False
    return True


def runtime_paths() -> tuple[Path, ...]:
    """What an account must be able to read to run the engine: Python, its libraries, installed packages and ours."""
    folders = sysconfig.get_paths()
    here = Path(__file__).resolve().parents[1]
    names = [folders["stdlib"], folders["platstdlib"], folders["purelib"], folders["platlib"], sys.prefix]
    return (*dict.fromkeys(Path(n) for n in names), here, here / "errors.py")


def choose_account(user: str | None, must_read: Iterable[Path], must_write: Path) -> Account:
    """The account to become: --user, else who ran sudo, else a service account, else uid 0 with a `reason`.

    Args:
        user: the account named by the operator, or None.
        must_read: paths the account needs, usually `runtime_paths()`.
        must_write: the lake; it may not exist yet.

    Raises ConfigError for an unknown `user` or one that cannot do the work. Not root: the present account.
    """
    needed = tuple(must_read)
    if user is not None:
        account = _lookup(user)
        if os.geteuid() != 0 and account.uid != os.geteuid():
            raise ConfigError(f"--user {user}: only root can become another account; run with sudo or leave it out")
        problem = _obstacle(account, needed, must_write)
        if problem:
            raise ConfigError(f"--user {user}: {problem}; choose another account, or move it")
        return account
    if os.geteuid() != 0:
        return _present()
    sudo = os.environ.get("SUDO_UID", "")
    if sudo.isdigit() and int(sudo) != 0:
        names = [_name(int(sudo))]
    else:
        names = [n for n in SERVICE_ACCOUNTS if _exists(n)]
    problems = []
    for name in names:
        account = _lookup(name)
        problem = _obstacle(account, needed, must_write)
        if not problem:
            return account
        problems.append(problem)
    return Account(0, 0, (), "root", "/root", "; ".join(problems) or "no account packetlake or nobody exists")


def _lookup(name: str) -> Account:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user {name}: no such account; name one from /etc/passwd") from None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)


def _present() -> Account:
    uid = os.geteuid()
    return Account(uid, os.getegid(), tuple(os.getgroups()), _name(uid), str(Path("~").expanduser()))


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _obstacle(account: Account, must_read: tuple[Path, ...], lake: Path) -> str:
    """Why the account cannot do the work, or empty. Asked by starting this Python as that account."""
    if account.uid == os.geteuid():
        return ""
    if lake.exists():
        tables = [path for path in lake.iterdir() if path.is_dir()] if lake.is_dir() else []
        wanted = [f"w{path}" for path in (lake, *tables)]
    else:  # we will create it and give it away: the account must only be able to get there
        wanted = [f"x{_existing_parent(lake)}"]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROBE, *(f"r{path}" for path in must_read), *wanted],
            user=account.uid, group=account.gid, extra_groups=account.groups, cwd="/", env={},
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return f"account {account.name} cannot run {sys.executable}"
    if done.returncode == 0:
        return ""
    path = done.stderr.strip().rpartition("\n")[2] or sys.executable
    return f"account {account.name} has no access to {path}"


def _existing_parent(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    while not path.exists():
        path = path.parent
    return path


def prepare_lake(lake: Path, account: Account) -> None:
    """Create the lake's directory and missing parents, and give the account those we created; nothing else changes.

    Each step is relative to a directory held open and refuses symbolic links, so that nobody who can write to a
    parent can lead root astray. Raises StoreError naming the path.
    """
    lake = Path(os.path.abspath(lake))
    start = _existing_parent(lake)
    missing = lake.relative_to(start).parts
    if missing and account.uid != os.geteuid():
        _refuse_foreign_links(start, account)
    try:
        here = os.open(start, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StoreError(f"lake {lake}: {start}: {(error.strerror or '').lower()}; choose another --lake") from None
    try:
        for part in missing:
            os.mkdir(part, 0o755, dir_fd=here)
            child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = child
            info = os.fstat(here)
            if (info.st_uid, info.st_gid) == (account.uid, account.gid):
                continue
            if info.st_uid != os.geteuid() or os.listdir(here):
                raise StoreError(f"lake {lake}: {part} was changed while it was made; choose another --lake")
            os.fchown(here, account.uid, account.gid)
    except OSError as error:
        raise StoreError(
            f"lake {lake} cannot be created: {(error.strerror or str(error)).lower()}; choose another --lake"
        ) from None
    finally:
        os.close(here)


def _refuse_foreign_links(start: Path, account: Account) -> None:
    """A link made by somebody else than root may lead only to a directory of the account itself."""
    if start.stat().st_uid == account.uid:
        return
    for path in (*reversed(start.parents), start):
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode) and info.st_uid != 0:
            raise StoreError(f"lake: {path} is a link that {_name(info.st_uid)} made; give --lake without links")


def drop(account: Account) -> str:
    """Become the account and give up every capability for good; returns one line for the operator.

    Raises CaptureError when any thread of the process kept a right: do not go on then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    was_root = os.geteuid() == 0
    for capability in range(64):  # the bounding set first: it needs CAP_SETPCAP
        if libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1 and was_root:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_KEEPCAPS, 0, 0, 0, 0)
    try:
        if was_root and account.uid != 0:
            os.setgroups(account.groups)
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise CaptureError(f"cannot become {account.name}: {error.strerror}; choose another --user") from None
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _send_no_new_privs(libc)
    _verify(account, bounding=was_root)
    if account.uid != 0:
        return f"running as {account.name} without capabilities"
    why = account.reason or "it was asked to"
    return f"keeps uid 0 without any capability because {why}; files of root stay open to it"


def _send_no_new_privs(libc: ctypes.CDLL) -> None:
    """Give no_new_privs to all threads: only a seccomp filter with TSYNC does that. This filter allows everything."""
    if len(os.listdir("/proc/self/task")) > 1 and os.uname().machine in _SECCOMP:
        program = ctypes.create_string_buffer(_ALLOW_ALL, len(_ALLOW_ALL))
        fprog = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(program)))
        libc.syscall(_SECCOMP[os.uname().machine], _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, fprog)


def _verify(account: Account, bounding: bool) -> None:
    """Read every thread's status.

    The bounding set is empty only if we had the right to empty it, and in threads that existed already it is not: it
    limits what a program started with more rights may have, and no_new_privs excludes those.
    """
    me = str(threading.get_native_id())
    for thread in Path("/proc/self/task").iterdir():
        try:
            lines = (thread / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        kept = [s for s in _SETS if int(status[s], 16) and (s != "CapBnd" or (bounding and thread.name == me))]
        if status["NoNewPrivs"] != "1":
            kept.append("the right to gain more")
        if set(status["Uid"].split()) != {str(account.uid)}:
            kept.append("uid " + status["Uid"].replace("\t", "/"))
        if kept:
            raise CaptureError(
                f"thread {thread.name} ({status['Name']}) kept {', '.join(kept)}; "
                "rights must be dropped before threads start: set OPENBLAS_NUM_THREADS=1"
            )
