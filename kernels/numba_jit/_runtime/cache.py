"""Compiled code on disk: found again by the next process, and each function compiled by one at a time.

Numba notices a change of a cached function's own file only, so a stale callee could run. Here the folder is named after
a hash of all kernel sources, the versions of Python, numba, llvmlite and numpy, the CPU compiled for, and Numba's
options for the compiler; it stands in the user's cache folder, so that a read-only install works and an uninstall
leaves nothing in the package.

Two processes that compile the same function for different dtypes at once can, in Numba, leave an index that names the
code of one for the other. Here whoever does not find a function takes its lock, on a file beside its code, before it
compiles; others wait and find it then, or compile another function in the meantime. The lock is the operating system's
and goes with its process. Files are written beside their place and moved there, so none is ever half there; one that
cannot be read all the same is made anew.

Where the folder cannot be written, code that stands there is used, and the rest is compiled in each process anew.
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

# Numba's options that change the code it makes.
OPTIONS = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT", "USING_SVML", "CPU_NAME",
           "CPU_FEATURES")  # fmt: skip
POLL = 0.05  # seconds between looks at what another process compiles


def all_versions() -> Path:
    """The folder with one folder for each version of the kernels; BEVIA_FAST_CACHE_DIR overrides the place."""
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
    """Another process is compiling the function, and this one does not want to wait for that."""


class _CompileLock:
    """Held by the process that compiles the function whose files begin with `base`. Between threads it is only touched
    under Numba's own lock. A function is compiled with those that it calls, which are not kept by themselves: so nobody
    waits for one lock while he holds another."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.file: IO[bytes] | None = None

    def take(self) -> bool:
        """False if another process has it. True where there is nobody to agree with: nothing can be written, or the
        file system knows no locks."""
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
        self.remove("*.tmp.*")  # of a process that was killed
        return True

    def remove(self, pattern: str) -> None:
        """Remove files of the function."""
        for path in glob.glob(f"{glob.escape(self.base)}.{pattern}"):
            with contextlib.suppress(OSError):
                os.remove(path)

    def release(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class _Place(_CacheLocator):
    """Where Numba keeps the code of a function."""

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
    """What Numba asks for compiled code, and hands it to."""

    _impl_class = _Files

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._lock = _CompileLock(os.path.join(self.cache_path, self._impl.filename_base))

    @contextlib.contextmanager
    def one_process_at_a_time(self) -> Iterator[None]:
        """Where the function is compiled: its lock, if that is taken in here, is given back at the end, however it
        comes."""
        with global_compiler_lock, interrupts.put_off():
            try:
                yield
            finally:
                self._lock.release()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature, or None: the caller then compiles it, and others wait for that. Raises
        CompiledElsewhere if another process does, and `waiting` is off."""
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
        if found is None:  # it may have come just before the lock was free
            found = self._load(sig, target_context)
        if found is None:
            compiled.append(name)
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        # Code calls Numba's memory management, which has to be ready. What else Numba's own method makes ready here is
        # for the compiler, who does it too: it takes as long as to load all kernels.
        rtsys.initialize(target_context)
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except Exception:  # damaged: anything can come of that
            if self._lock.file is not None:
                self._lock.remove("nbi")
                self._lock.remove("*.nbc")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if writable():
            try:
                with saving:
                    super().save_overload(sig, data)
            except OSError as error:  # a full disk is no reason not to train
                global _problem
                _problem = error.strerror or str(error)


def _silent(name: str) -> None:
    """Nobody wants to know."""


compiled: list[str] = []  # what this process, or one that it started for that, compiled and did not find
waiting = True  # for what another process compiles
saving = threading.Lock()  # held while files are written
_telling: Callable[[str], None] = _silent
_problem = ""
_writable: bool | None = None


@contextlib.contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """In here, `tell` is called with the name of each function that is not found on disk: this process compiles it, or
    waits for another."""
    global _telling
    before, _telling = _telling, tell
    try:
        yield
    finally:
        _telling = before


def writable() -> bool:
    """Whether compiled code can be kept for the next process."""
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
    """Why compiled code is not kept, in a few words; empty if it is."""
    writable()
    return _problem
