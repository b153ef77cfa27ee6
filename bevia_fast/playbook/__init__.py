"""The playbook: why each step of a GPT exists, with the formula, the line of code, and a version of it in plain loops.

The text is in `docs/playbook/`. Begin with `chapters`, which reads it and finds what it quotes from the code; `twins`
collects the plain loops of the text and compares them with a backend; `figures` draws its pictures; `formulas` and
`page` make one HTML file of all chapters. Nothing here trains or times anything.
"""

from __future__ import annotations

from .twins import twins

__all__ = ["twins"]
