"""Which contents of records were found valid before, so that the next look need not parse them.

A file in the results folder lists them by their SHA-256, for the code that judged them. Bytes are hashed at every look,
so a file that changed is not in the list; and a list that is damaged, or of other code, costs time and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from wireheading.files import code_digest, replacing

NAME = ".valid-records"


def known_valid(results: Path) -> set[str]:
    """SHA-256 of the contents that this code found valid."""
    try:
        code, *known = (results / NAME).read_text(encoding="latin-1").splitlines() or [""]
    except OSError:
        return set()
    return set(known) if code == code_digest() else set()


def remember_valid(results: Path, valid: set[str]) -> None:
    """Writes the list, unless the results are another user's.

    Raises:
        WriteError: The disk is full.
    """
    if os.access(results, os.W_OK):
        with replacing(results / NAME) as temporary:
            temporary.write_text("\n".join([code_digest(), *sorted(valid)]) + "\n", encoding="latin-1")
