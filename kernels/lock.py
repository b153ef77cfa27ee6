"""A lock on an open file that goes with the process that holds it, however that ends."""

from __future__ import annotations

import os
import sys

FAR = (1 << 31) - 2  # Windows locks bytes, and nobody else may then read them; no file of lines has this one


def take_lock(handle: int) -> bool:
    """Take the only lock on an open file, until it is closed or the process is gone. False if another has it.

    Raises OSError where the file system has no locks.
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
