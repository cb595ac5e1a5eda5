"""The only door to numba: decorators, the cache directory, and calls to C functions by address.

Where compiled kernels are kept decides who can run code as us, since numba's cache files are pickles: root uses only
a directory that root owns and nobody else can write. The directory is named after a hash of everything a kernel
freezes at compile time (kernels, row layout, constants, versions of numba and Python), because numba itself notices
edits only in the file of the function being compiled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic

_ENGINE = Path(__file__).parent
_COMPLETE = "complete"
_KEEP_CACHES = 3  # older builds' directories are removed


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {sys.implementation.cache_tag}".encode())
    for path in [
        _ENGINE / "packets.py",
        _ENGINE / "constants.py",
        Path(__file__),
        *sorted((_ENGINE / "kernels").glob("*.py")),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _private(path: Path) -> bool:
    """Make `path` if needed; True when it is ours and closed to writers other than us."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = path.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022
    return mine and os.access(path, os.W_OK)


def _choose_cache() -> Path | None:
    """The directory for compiled kernels, or None: compile in memory each time (slower start, nothing else)."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        root = Path(given)
    elif os.geteuid() == 0:
        root = Path("/var/cache/packetlake")
    else:
        try:
            root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "packetlake"
        except RuntimeError:  # an account without a home
            return None
    chosen = root / _fingerprint()
    if not _private(root) or not _private(chosen):
        return None
    old = sorted((p for p in root.iterdir() if p.is_dir() and p != chosen), key=lambda p: p.stat().st_mtime)
    for path in old[: max(0, len(old) - _KEEP_CACHES)]:
        if len(path.name) == 16:
            shutil.rmtree(path, ignore_errors=True)
    return chosen


CACHE_DIR = _choose_cache()
if CACHE_DIR is not None:
    numba_config.CACHE_DIR = str(CACHE_DIR)


def cache_is_warm() -> bool:
    """True when all kernels of this build were compiled before."""
    return CACHE_DIR is not None and (CACHE_DIR / _COMPLETE).exists()


def mark_warm() -> None:
    """Remember that all kernels are in the cache."""
    if CACHE_DIR is not None:
        (CACHE_DIR / _COMPLETE).touch()


def kernel(function: Any) -> Any:
    """Compile lazily on first call; releases the GIL; one array layout per argument by contract."""
    return numba.njit(function, nogil=True, cache=CACHE_DIR is not None, error_model="numpy", _nrt=False)


def helper(function: Any) -> Any:
    """A per-frame step that kernels call: compiled into each of them, never cached or called from Python."""
    return numba.njit(function, nogil=True, error_model="numpy", _nrt=False)


def callback(signature: Any) -> Any:
    """Compile a function that C code calls. `.address` of the result is its address."""
    return numba.cfunc(signature, nopython=True, cache=CACHE_DIR is not None, error_model="numpy")


def is_compiled() -> bool:
    """False under NUMBA_DISABLE_JIT, where the capture callback cannot exist."""
    return not numba_config.DISABLE_JIT


@intrinsic
def load_u32(typingctx: Any, address: Any) -> Any:
    """The native 32-bit word at `address` (int64)."""
    return types.uint32(types.int64), _loader(32)


@intrinsic
def load_i64(typingctx: Any, address: Any) -> Any:
    """The native signed 64-bit word at `address` (int64)."""
    return types.int64(types.int64), _loader(64)


def _loader(bits: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(bits).as_pointer()), align=1)

    return codegen


@intrinsic
def store_i64(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a native signed 64-bit word at `address` (both int64)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, n: Any) -> Any:
    """memcpy(target, source, n), all int64: addresses and a byte count."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        cgutils.raw_memcpy(
            builder,
            builder.inttoptr(args[0], pointer),
            builder.inttoptr(args[1], pointer),
            args[2],
            ir.Constant(ir.IntType(64), 1),
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_void(typingctx: Any, function: Any, a: Any) -> Any:
    """Call the C function `void f(void *a)` at address `function`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def call_int3(typingctx: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
    """Call the C function `int f(void *a, void *b, void *c)` at address `function`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word, word, word]).as_pointer()
        return builder.call(builder.inttoptr(args[0], kind), [args[1], args[2], args[3]])

    return types.int32(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _prefetch(typingctx: Any, array: Any, at: Any) -> Any:
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@helper
def _no_prefetch(array: Any, at: Any) -> None:
    pass


# prefetch(array, at): bring the cache line of the array's flat element `at` nearer; any index, nothing is read.
prefetch = _no_prefetch if numba_config.DISABLE_JIT or numba_config.BOUNDSCHECK else _prefetch


def _checked_loads() -> tuple[Any, Any, Any, Any]:
    """Byte loads through array indexing: for runs without the compiler and for NUMBA_BOUNDSCHECK=1."""
    int64: Any = np.int64  # numpy's own annotations of << differ between its versions

    @helper
    def u8(buf: Any, at: Any) -> Any:
        return int64(buf[at])

    @helper
    def be16(buf: Any, at: Any) -> Any:
        return int64(buf[at]) << 8 | int64(buf[at + 1])

    @helper
    def be32(buf: Any, at: Any) -> Any:
        return int64(buf[at]) << 24 | int64(buf[at + 1]) << 16 | int64(buf[at + 2]) << 8 | int64(buf[at + 3])

    @helper
    def be64(buf: Any, at: Any) -> Any:
        value = np.uint64(0)
        for i in range(8):
            value = value << np.uint64(8) | np.uint64(buf[at + i])
        return np.int64(value)

    return u8, be16, be32, be64


def _fast_loads() -> tuple[Any, Any, Any, Any]:
    """Byte loads as one machine load and byte swap: array indexing tests each index for being negative first."""

    def loader(bits: int) -> Any:
        @intrinsic
        def load(typingctx: Any, buf: Any, at: Any) -> Any:
            if not (isinstance(buf, types.Array) and buf.layout == "C" and buf.dtype == types.uint8):
                return None

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                word = builder.load(
                    builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(bits).as_pointer()), align=1
                )
                if bits > 8:
                    word = builder.bswap(word)
                return word if bits == 64 else builder.zext(word, ir.IntType(64))

            return types.int64(buf, types.int64), codegen

        return load

    return loader(8), loader(16), loader(32), loader(64)


# u8, be16, be32, be64(buf, at): the unsigned big-endian integer at index `at` of a C-contiguous uint8 array, as int64
# (be64 keeps the bit pattern). The caller has checked the bounds.
u8, be16, be32, be64 = _checked_loads() if numba_config.DISABLE_JIT or numba_config.BOUNDSCHECK else _fast_loads()
