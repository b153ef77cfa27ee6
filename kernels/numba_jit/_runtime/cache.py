"""Compiled code on disk: later processes reuse it, and only one process compiles a function at a time.

Numba's own cache notices a change only in the file of the cached function, so a stale callee could run. Here the
folder's name is a hash of all kernel sources, the versions of Python, Numba, llvmlite and NumPy, the target CPU, and
Numba's compiler options. The folder lies in the user's cache folder, so that a read-only installation works and an
uninstallation leaves nothing in the package.

In Numba, two processes that compile the same function for different dtypes at the same time can leave an index that
maps the types of one to the code of the other. Here a process that does not find a function takes a lock, on a file
beside the code, before it compiles. Other processes wait for the result, or compile another function meanwhile. The
lock is the operating system's and is released when the process exits. Files are written under a temporary name and
renamed, so that none is ever incomplete; a file that cannot be read is compiled again.

If the folder cannot be written, existing code is used and everything else is compiled in each process.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import llvmlite
import numba
import numpy
import platformdirs
from numba import config as numba_config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys

from ...lock import take_lock
from . import interrupts
from .target import TARGET

# The options of Numba that affect the generated code.
OPTIONS = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT", "USING_SVML", "CPU_NAME",
           "CPU_FEATURES")  # fmt: skip
POLL = 0.05  # seconds between checks whether another process has finished compiling


def all_versions() -> Path:
    """Return the folder that holds one subfolder per version of the kernels; BEVIA_FAST_CACHE_DIR overrides it."""
    return Path(os.environ.get("BEVIA_FAST_CACHE_DIR") or platformdirs.user_cache_dir("bevia-fast")) / "kernels"


def _version() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parents[2]
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    versions = (sys.version, numba.__version__, llvmlite.__version__, numpy.__version__)
    digest.update(repr((versions, TARGET, [getattr(numba_config, name, None) for name in OPTIONS])).encode())
    return digest.hexdigest()[:20]


FOLDER = all_versions() / _version()


class CompiledElsewhere(Exception):
    """Another process is compiling the function, and this process does not wait for it."""


class _CompileLock:
    """The lock on one function; `base` is the prefix of its files.

    Threads of this process touch it only while they hold Numba's compiler lock. A function is compiled together with
    its callees, which are not cached separately, so no process waits for one lock while it holds another.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.file: IO[bytes] | None = None

    def take(self) -> bool:
        """Return False if another process holds the lock.

        Return True if there is nothing to coordinate: the folder cannot be written, or the file system has no locks.
        """
        if self.file is not None or not writable():
            return True
        try:
            os.makedirs(os.path.dirname(self.base), exist_ok=True)
            file = open(self.base + ".lock", "ab")  # noqa: SIM115  (closed by `release`)
        except OSError:
            return True
        try:
            if not take_lock(file.fileno()):
                file.close()
                return False
        except OSError:
            file.close()
            return True
        self.file = file
        self.remove("*.tmp.*")  # left behind by a process that was killed
        return True

    def remove(self, pattern: str) -> None:
        """Remove the files of the function that match `pattern`."""
        for path in glob.glob(f"{glob.escape(self.base)}.{pattern}"):
            with contextlib.suppress(OSError):
                os.remove(path)

    def release(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class _Place(_CacheLocator):
    """Tells Numba where the code of a function is cached."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file, self._line = file, function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Place:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(FOLDER / Path(self._py_file).parent.name)

    def get_source_stamp(self) -> str:
        return FOLDER.name

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Place]  # noqa: RUF012  (Numba's)


class Cache(FunctionCache):
    """The cache that Numba loads compiled code from and saves it to."""

    _impl_class = _Files

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._lock = _CompileLock(os.path.join(self.cache_path, self._impl.filename_base))

    @contextlib.contextmanager
    def one_process_at_a_time(self) -> Iterator[None]:
        """Wrap the compilation of the function: a lock that is taken inside is always released at the end."""
        with global_compiler_lock, interrupts.deferred():
            try:
                yield
            finally:
                self._lock.release()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for a signature, or None: the caller then compiles it while other processes wait.

        Raises CompiledElsewhere if another process is compiling it and `waiting` is False.
        """
        found = self._load(sig, target_context)
        if found is not None:
            return found
        name = f"{self._py_func.__module__.rpartition('.')[2]}.{self._py_func.__name__}"
        _telling(name)
        while found is None and not self._lock.take():
            if not waiting:
                raise CompiledElsewhere(name)
            time.sleep(POLL)
            interrupts.checkpoint()
            found = self._load(sig, target_context)
        if found is None:  # the code may have arrived just before the lock was released
            found = self._load(sig, target_context)
        if found is None:
            compiled.append(name)
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        # Compiled code calls Numba's memory management, which must be initialized. Numba's own method initializes the
        # compiler as well, which does so itself when it is needed; that takes as long as loading all kernels.
        rtsys.initialize(target_context)
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except Exception:  # a damaged file can raise anything
            if self._lock.file is not None:
                self._lock.remove("nbi")
                self._lock.remove("*.nbc")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if writable():
            try:
                with saving:
                    super().save_overload(sig, data)
            except OSError as error:  # a full disk must not stop training
                global _problem
                _problem = error.strerror or str(error)


def _silent(name: str) -> None:
    """Ignore the name."""


compiled: list[str] = []  # functions that this process, or its second compiler, did not find and compiled
waiting = True  # whether to wait for functions that another process is compiling
saving = threading.Lock()  # held while files are written
_telling: Callable[[str], None] = _silent
_problem = ""
_writable: bool | None = None


@contextlib.contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """Inside this context, call `tell` with the name of each function that is not on disk.

    This process then compiles the function, or waits for another process that does.
    """
    global _telling
    before, _telling = _telling, tell
    try:
        yield
    finally:
        _telling = before


def writable() -> bool:
    """Return whether compiled code can be saved for later processes."""
    global _writable, _problem
    if _writable is None:
        try:
            FOLDER.mkdir(parents=True, exist_ok=True)
            _writable = os.access(FOLDER, os.W_OK)
            _problem = "" if _writable else "it cannot be written"
        except OSError as error:
            _writable, _problem = False, error.strerror or str(error)
    return _writable


def problem() -> str:
    """Return why compiled code cannot be saved, in a few words; empty if it can."""
    writable()
    return _problem
