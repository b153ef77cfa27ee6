"""`python -m bevia_fast` is the same as `bevia-fast`."""

import sys

from .commands.main import main

if __name__ == "__main__":
    sys.exit(main())
