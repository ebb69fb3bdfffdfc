"""The session protocol, both halves, as pure state machines.

Theory of operation
-------------------
The verifier appends to one *log* per session: the prompt and the committed tokens. The edge offers a *tree* of guesses
that hangs off that log. That is all the state there is. Neither side waits for the other, nobody cancels anything:
what a late message means follows from the log, by content.

    edge                                             cloud
    EdgeSession.handle(event) -> effects             CloudSession.handle(event) -> effects
      tree: what we guessed, sent and unsent           tree: what arrived and is not contradicted
      log:  what we know is committed                  log:  what is committed
                -- Proposal{base, tokens, parents} -->
                <-- Commit{position, tokens} ----------

Rules that hold at every moment (tests/unit/test_session_properties.py checks them):

 1. The edge's log is a prefix of the cloud's.
 2. A node that agrees with the committed text is never dropped as stale, however late it arrives.
 3. Names the cloud counts having taken a message <= names the edge counted when it sent it <= window. The edge always
    learns later, so its count is the larger.
 4. No step starts that could commit more than max_lead tokens past the last acknowledgement.
 5. Over a link that works again, the session ends after a bounded number of steps, with the text of the target alone.

Nothing in here waits, sends, reads a clock or draws a random number: time and results arrive in events, and what has
to happen is returned as effects. The transition tables are in `table.py`, the tree both halves share in `tree.py`,
the numbers of its nodes in `outbox.py` (edge) and `names.py` (cloud). docs/protocol.md tells the same as a document.
"""

from paceline.session.cloud import CloudSession
from paceline.session.edge import EdgeSession

__all__ = ["CloudSession", "EdgeSession"]
