"""What is published while things happen."""

from __future__ import annotations

from autotuned.documents import Document


class SubscribedDocument(Document):
    """Notifications `event` carry this subscription; `seq` is the newest event's number now."""

    subscription: str
    seq: int
