"""Named networks. Where each figure comes from: docs/link.md.

Fitted figures: benchmarks/fit_links.py. A round trip here is the shortest one; jitter comes on top of it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from simulator.link import LinkSettings
from simulator.network import NetworkSettings

# An office network: switches, no radio.
_LAN = LinkSettings(delay_s=0.25e-3, jitter_s=0.05e-3, bandwidth_bps=1e9)

# A data centre of the same city, over fibre.
_METRO = LinkSettings(delay_s=4e-3, jitter_s=0.4e-3, bandwidth_bps=300e6, loss=0.0001)

# Across a continent or an ocean.
_WAN = LinkSettings(delay_s=35e-3, jitter_s=1e-3, bandwidth_bps=100e6, loss=0.001)

# A moving phone. Nothing is lost: the radio link sends again what was not heard, which is delay and capacity.
_LTE_UP = LinkSettings(
    delay_s=25e-3,
    jitter_s=5e-3,
    jitter_correlation_s=0.02,
    bandwidth_bps=3.9e6,
    bandwidth_spread=0.91,
    bandwidth_correlation_s=1.8,
)
_LTE_DOWN = LinkSettings(
    delay_s=25e-3,
    jitter_s=0.8e-3,
    jitter_correlation_s=0.02,
    bandwidth_bps=4.8e6,
    bandwidth_spread=0.87,
    bandwidth_correlation_s=2.9,
)

# A moving dish under satellites in low orbit.
_STARLINK_UP = LinkSettings(
    delay_s=23.5e-3,
    jitter_s=9.6e-3,
    jitter_correlation_s=0.05,
    bandwidth_bps=15e6,
    loss=0.0077,
    loss_burst_s=0.78,
)
_STARLINK_DOWN = LinkSettings(
    delay_s=23.5e-3,
    jitter_s=1.7e-3,
    jitter_correlation_s=0.05,
    bandwidth_bps=100e6,
    loss=0.0077,
    loss_burst_s=0.78,
)

# Over a geostationary satellite.
_SATELLITE_UP = LinkSettings(
    delay_s=300e-3, jitter_s=10e-3, bandwidth_bps=3e6, loss=0.001, loss_burst_s=0.05
)
_SATELLITE_DOWN = LinkSettings(
    delay_s=300e-3, jitter_s=10e-3, bandwidth_bps=25e6, loss=0.001, loss_burst_s=0.05
)

# Far from the access point, among many others, and then to a data centre of the same city.
_BAD_WIFI_UP = LinkSettings(
    delay_s=5e-3,
    jitter_s=38e-3,
    jitter_correlation_s=0.25,
    bandwidth_bps=10e6,
    bandwidth_spread=0.58,
    bandwidth_correlation_s=0.5,
    loss=0.01,
    loss_burst_s=0.06,
)
_BAD_WIFI_DOWN = LinkSettings(
    delay_s=5e-3,
    jitter_s=12e-3,
    jitter_correlation_s=0.25,
    bandwidth_bps=10e6,
    bandwidth_spread=0.58,
    bandwidth_correlation_s=0.5,
    loss=0.01,
    loss_burst_s=0.06,
)

PROFILES: Mapping[str, NetworkSettings] = MappingProxyType(
    {
        name: NetworkSettings(up=up, down=down, name=name)
        for name, up, down in (
            ("lan", _LAN, _LAN),
            ("metro", _METRO, _METRO),
            ("wan", _WAN, _WAN),
            ("lte", _LTE_UP, _LTE_DOWN),
            ("starlink", _STARLINK_UP, _STARLINK_DOWN),
            ("satellite", _SATELLITE_UP, _SATELLITE_DOWN),
            ("bad-wifi", _BAD_WIFI_UP, _BAD_WIFI_DOWN),
        )
    }
)
