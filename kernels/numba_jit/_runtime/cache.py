"""Compiled code on disk: later processes reuse it, and only one process compiles a function at a time.

Numba's own cache notices a change only in the file of the cached function, so a stale callee could run. Here the
folder's name is a hash of all kernel sources, the versions of Python, Numba, llvmlite and NumPy, the target CPU, and
Numba's compiler options. The folder lies in the user's cache folder, so that a read-only installation works and an
uninstallation leaves nothing in the package.

In Numba, two processes that compile the same function for different dtypes at the same time can leave an index that
maps the types of one to the code of the other. Here a process that does not find a function takes a lock, on a file
beside the code, before it compiles. Other processes wait for the result, or compile another function meanwhile. The
lock is the operating system's and is released when the process exits. Files are written under a temporary name and
renamed, so that none is ever incomplete.

A flipped bit in machine code would be executed. So an index begins with its SHA-256 and holds that of each file of
code; nothing is unpickled or linked before its hash was compared. A damaged file is removed and compiled again.

If the folder cannot be written, existing code is used and everything else is compiled in each process.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import llvmlite
import numba
import numpy
from numba import config as numba_config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from ...lock import take_lock
from ...places import NOWHERE, cache_root
from . import interrupts
from .target import TARGET

# The options of Numba that affect the generated code.
OPTIONS = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT", "USING_SVML", "CPU_NAME",
           "CPU_FEATURES")  # fmt: skip
POLL = 0.05  # seconds between checks whether another process has finished compiling


def all_versions() -> Path:
    """Return the folder that holds one subfolder per version of the kernels; BEVIA_FAST_CACHE_DIR overrides it."""
    return cache_root() / "kernels"


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


class DamagedCode(Exception):
    """A file of compiled code is not the one that was written."""


Index = dict[Any, tuple[str, bytes]]  # a signature -> the file of its code, and the SHA-256 of that file


class _Store(IndexDataCacheFile):
    """The files of one function: an index, and one file of code for each signature, all with checksums.

    The files have Numba's names. A file of code is written before the index that names it, so an index on disk never
    refers to code that is still to be written.
    """

    def load(self, key: Any) -> Any:
        """Return the data of a signature, or None if there is none. Raises DamagedCode."""
        name, digest = self._load_index().get(key, ("", b""))
        if not name:
            return None
        try:
            data = Path(self._data_path(name)).read_bytes()
        except FileNotFoundError:
            raise DamagedCode(name) from None
        if hashlib.sha256(data).digest() != digest:
            raise DamagedCode(name)
        return pickle.loads(data)

    def save(self, key: Any, data: Any) -> None:
        """Write the data of a signature. The caller holds the lock on the function."""
        try:
            index = self._load_index()
        except DamagedCode:  # on a file system without locks, where it was not removed
            index = {}
        taken = {name for name, _ in index.values()}
        free = (name for name in map(self._data_name, itertools.count(1)) if name not in taken)
        name = index[key][0] if key in index else next(free)
        content = dumps(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(content)
        index[key] = name, hashlib.sha256(content).digest()
        self._save_index(index)

    def _load_index(self) -> Index:
        try:
            content = Path(self._index_path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        size = hashlib.sha256().digest_size
        if hashlib.sha256(content[size:]).digest() != content[:size]:
            raise DamagedCode(self._index_name)
        index: Index = pickle.loads(content[size:])
        return index

    def _save_index(self, index: Index) -> None:
        content = dumps(index)
        with self._open_for_write(self._index_path) as file:
            file.write(hashlib.sha256(content).digest() + content)


class Cache(FunctionCache):
    """The cache that Numba loads compiled code from and saves it to."""

    _impl_class = _Files

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Store(self.cache_path, self._impl.filename_base, FOLDER.name)
        self._damaged = False  # the code on disk was
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
            found = self._load(sig, target_context, alone=True)
        if found is None:
            compiled.append(name)
            if self._damaged:
                damaged.append(name)
        return found

    def _load(self, sig: Any, target_context: Any, alone: bool = False) -> Any:
        """Return the code for a signature, or None. `alone`: no other process is replacing the files."""
        # Compiled code calls Numba's memory management, which must be initialized. Numba's own method initializes the
        # compiler as well, which does so itself when it is needed; that takes as long as loading all kernels.
        rtsys.initialize(target_context)
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except Exception as error:  # DamagedCode; and intact code that this process cannot use may raise anything
            if alone and not isinstance(error, OSError):
                self._damaged = True
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
damaged: list[str] = []  # those of them whose files were damaged
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
            homeless = NOWHERE in FOLDER.parents
            reason = "there is no home folder; set BEVIA_FAST_CACHE_DIR" if homeless else error.strerror or str(error)
            _writable, _problem = False, reason
    return _writable


def problem() -> str:
    """Return why compiled code cannot be saved, in a few words; empty if it can."""
    writable()
    return _problem


def described() -> str:
    """Return `problem` with the folder, if there is one."""
    return _problem if not problem() or NOWHERE in FOLDER.parents else f"{_problem} ({FOLDER})"
