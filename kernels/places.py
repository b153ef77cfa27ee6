"""Where compiled code and encoded texts are kept: both can be made again, so they lie in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

# Nothing can be created below it. Not a folder that all users share: they could put code into it for others to run.
NOWHERE = Path(os.devnull) / "no-home-folder"


def cache_root() -> Path:
    """Return the folder of all caches; the environment variable BEVIA_FAST_CACHE_DIR overrides it.

    Returns NOWHERE if the user has no home folder, as in a container whose user has no entry in /etc/passwd.
    """
    chosen = os.environ.get("BEVIA_FAST_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        found = Path(platformdirs.user_cache_dir("bevia-fast"))
    except (RuntimeError, KeyError, OSError):  # how it fails depends on the version of Python and of platformdirs
        return NOWHERE
    return found if found.is_absolute() else NOWHERE  # "~" stays if nothing replaces it
