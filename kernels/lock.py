"""A lock on an open file. The operating system releases it when the process exits, for whatever reason."""

from __future__ import annotations

import os
import sys

FAR = (1 << 31) - 2  # Windows locks bytes, which others can then not read; our files do not reach this one


def take_lock(handle: int) -> bool:
    """Lock an open file until it is closed or the process exits. Returns False if another process holds the lock.

    Raises OSError if the file system does not support locks.
    """
    if sys.platform == "win32":
        import msvcrt

        place = os.lseek(handle, 0, os.SEEK_CUR)
        os.lseek(handle, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(handle, place, os.SEEK_SET)
    else:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
