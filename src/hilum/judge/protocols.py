"""All scoring protocols by name.

Comes in: a name. Goes out: a ``Protocol`` whose ``score`` takes a Pair. Adding one is a row in a file's ``PROTOCOLS``.
"""

from __future__ import annotations

import difflib

from hilum.errors import UsageError
from hilum.judge import general, kits, lits
from hilum.judge.scoring import Protocol

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol for protocol in (*general.PROTOCOLS, *kits.PROTOCOLS, *lits.PROTOCOLS)
}


def protocol_named(name: str) -> Protocol:
    """The protocol with this name.

    Raises:
        UsageError: there is none; the known names are listed, the nearest first.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, 1)
        raise UsageError(
            f"no protocol {name!r}",
            wanted=f"one of {sorted(PROTOCOLS)}",
            fix=f"did you mean {near[0]!r}?" if near else None,
        )
    return PROTOCOLS[name]
