"""Walls that the kernel keeps for us once interfaces are open: files by Landlock, system calls by seccomp.

What is called here holds for the calling thread, for threads and processes it starts later (and with seccomp for all
threads of the process), for good. Nothing needs privileges but no_new_privs, which is set. Landlock: landlock(7),
ABI 1 to 7; what a kernel does not know is left out. seccomp: a classic BPF program, seccomp(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38  # linux/prctl.h

# --- Landlock: linux/landlock.h, the same numbers on every machine -------------------------------------------------
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << n for n in range(6))
_MAKE: Final = sum(1 << n for n in range(6, 13))  # devices, directories, files, sockets, links
REFER, TRUNCATE = 1 << 13, 1 << 14  # ABI 2, 3
CONNECT_TCP: Final = 2  # ABI 4
BIND_TCP: Final = 1
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1, 2  # ABI 6
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
READ: Final = READ_FILE | READ_DIR
RUN: Final = READ | EXECUTE
WRITE: Final = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | _MAKE | REFER | TRUNCATE
_ALL: Final = WRITE | EXECUTE


@dataclass(slots=True)
class Grants:
    """What stays allowed. Paths that do not exist are passed over; a directory means all below it.

    connect, bind: outgoing TCP connections, listening TCP sockets.
    """

    read: list[Path] = field(default_factory=list)
    run: list[Path] = field(default_factory=list)  # read and start programs
    write: list[Path] = field(default_factory=list)
    poke: list[Path] = field(default_factory=list)  # read, and write existing files
    connect: bool = False
    bind: bool = False


def landlock_abi() -> int:
    """The kernel's version of Landlock, 0 without it."""
    found = int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG))
    return max(found, 0)


def confine_files(grants: Grants) -> int:
    """Deny every file, and TCP, that is not granted. Returns the ABI used, 0 when the kernel has no Landlock.

    Raises OSError when the kernel has it and refuses.
    """
    libc, abi = _libc(), landlock_abi()
    if abi == 0:
        return 0
    handled = _ALL & ~(REFER if abi < 2 else 0) & ~(TRUNCATE if abi < 3 else 0)
    net = (0 if grants.connect else CONNECT_TCP) | (0 if grants.bind else BIND_TCP) if abi >= 4 else 0
    scoped = _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL if abi >= 6 else 0
    packed = struct.pack("=QQQ", handled, net, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _checked(
        libc.syscall(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0), "landlock_create_ruleset"
    )
    try:
        for paths, rights in (
            (grants.read, READ), (grants.run, RUN), (grants.write, WRITE), (grants.poke, READ | WRITE_FILE | TRUNCATE),
        ):  # fmt: skip
            for path in dict.fromkeys(paths):
                _allow(libc, ruleset, path, rights & handled)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return abi


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not there, or not ours to reach: nothing to allow
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{opened}"):
            rights &= _OF_FILES
        packed = struct.pack("=Qi", rights, opened)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, packed, 0), f"landlock_add_rule {path}")
    finally:
        os.close(opened)


# --- seccomp: linux/seccomp.h, linux/filter.h ------------------------------------------------------------------------
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1
_LD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD | BPF_W | BPF_ABS ...
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_X32: Final = 0x40000000  # other numbers for the same calls
# Calls that nothing of ours makes, and that a process which was taken over would: other processes' memory, mounts,
# namespaces, kernel code, the clock, keys, and interfaces of the kernel with a history of holes.
# Numbers by machine: x86_64 (arch/x86/entry/syscalls/syscall_64.tbl), aarch64 (include/uapi/asm-generic/unistd.h).
DENIED: Final = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "chroot": (161, 51), "setns": (308, 268), "unshare": (272, 97), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "open_by_handle_at": (304, 265), "quotactl": (179, 60),
    "syslog": (103, 116),
}  # fmt: skip


def deny_calls() -> bool:
    """Have every call of `DENIED` fail with EPERM, in all threads. False on a machine whose numbers are not known.

    Raises OSError when the kernel refuses.
    """
    machine = os.uname().machine
    if machine not in _SECCOMP:
        return False
    column = list(_SECCOMP).index(machine)
    numbers = sorted({pair[column] for pair in DENIED.values()})
    other = [(_JUMP_GREATER_EQUAL, _X32)] if machine == "x86_64" else []
    tests = [*other, *((_JUMP_EQUAL, number) for number in numbers)]
    steps = [
        (_LD_WORD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _REFUSE),
        (_LD_WORD, 0, 0, 0),
    ]
    steps += [(code, len(tests) - n, 0, value) for n, (code, value) in enumerate(tests)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    libc = _libc()
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _FILTER_FLAG_TSYNC, fprog), "seccomp")
    return True


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)


def state(pid: int | str = "self") -> dict[str, str]:
    """Of a process, from its status: `Seccomp` (2: a filter), `NoNewPrivs`, `CapEff`, ... Empty once it has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {}


def usual_paths(grants: Grants, libraries: Iterable[Path]) -> Grants:
    """Add what any program of ours needs: the system's libraries and settings, Python, /proc, devices, /tmp."""
    import tempfile

    grants.run += [Path(p) for p in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix")]
    grants.run += libraries
    grants.read += [Path(p) for p in ("/etc", "/run", "/sys", "/var/lib", "/var/cache", "/srv")]
    # /proc: a process's own niceness and its place when memory runs out. Whose files they are, the kernel checks.
    grants.poke += [Path(p) for p in ("/proc", "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/log")]
    grants.read += [Path("/dev/urandom"), Path("/dev/random")]
    grants.write += [Path(tempfile.gettempdir()), Path("/dev/shm")]  # noqa: S108 - it is what it is called
    return grants
