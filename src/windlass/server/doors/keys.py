"""Who asks: the API keys of a server, of which only fingerprints are kept, and how much each has in work."""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from windlass.server.errors.api_error import retry_later

NOBODY = b""
"""Who asks where no key is needed."""


class Keys:
    """`most`: requests of one key at once."""

    def __init__(self, keys: Iterable[str], most: int) -> None:
        self._known = [_fingerprint(key.encode()) for key in keys]
        self._most = most
        self._at_work: Counter[bytes] = Counter()

    @property
    def needed(self) -> bool:
        """Whether there are any."""
        return bool(self._known)

    def holder(self, authorization: bytes | None) -> bytes | None:
        """Who the Authorization header says that it is; None for nobody known. It takes the same time for any key."""
        if not self._known:
            return NOBODY
        scheme, _, key = (authorization or b"").partition(b" ")
        given = _fingerprint(key.strip())
        matches = [known for known in self._known if hmac.compare_digest(known, given)]
        return given if matches and scheme.lower() == b"bearer" else None

    @contextmanager
    def working(self, holder: bytes) -> Iterator[None]:
        """A request of this one is in work. Raises ApiError where it has as many as it may."""
        if self._at_work[holder] >= self._most:
            whose = "this key has" if self._known else "this server has"
            raise retry_later(f"{whose} {self._most} requests in work, the most at once; wait for one to end", 1.0)
        self._at_work[holder] += 1
        try:
            yield
        finally:
            self._at_work[holder] -= 1
            if not self._at_work[holder]:
                del self._at_work[holder]


def _fingerprint(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
