"""What the drafts of each tenant were worth so far, so that a new session of it does not begin at nothing.

Apart by tenant: what one sends must not change what is believed of another.
"""

from paceline.session.ranks import FADE_OF_ALL, RankRates

MAX_TENANTS = 1024
"""Those longest without a new session are forgotten beyond."""


class Experience:
    """Gives new sessions the rates to begin with."""

    def __init__(self) -> None:
        self._rates: dict[str, RankRates] = {}

    def rates_for(self, tenant: str) -> RankRates:
        """Return the rates for a new session of a tenant; what it learns counts for its later ones as well."""
        above = self._rates.pop(tenant, None) or RankRates(fade=FADE_OF_ALL)
        self._rates[tenant] = above  # the newest is last
        if len(self._rates) > MAX_TENANTS:
            del self._rates[next(iter(self._rates))]
        return RankRates(above=above)
