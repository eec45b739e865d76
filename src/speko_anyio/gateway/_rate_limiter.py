"""How often a key may do something: a token bucket for each."""

from __future__ import annotations


class RateLimiter:
    """A token bucket for each of a known set of keys: `rate` a second on average, `burst` at once."""

    def __init__(self, *, rate: float, burst: int) -> None:
        if not rate > 0 or burst < 1:  # also refuses NaN
            raise ValueError(
                f"a rate limit needs a rate above 0 and a burst of 1 or more, not {rate}, {burst}"
            )
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, now: float) -> float:
        """Take one; return 0.0, or the seconds to wait if none is left. `now`: of a monotonic clock."""
        level, at = self._buckets.get(key_id, (float(self._burst), now))
        level = min(self._burst, level + (now - at) * self._rate)
        granted = level >= 1
        self._buckets[key_id] = (level - 1 if granted else level, now)
        return 0.0 if granted else (1 - level) / self._rate
