"""The control plane's link: typed topics over an MQTT broker, never waited for by the data plane."""

from paceline.mqtt.link import ControlLink, Statistics, Will, control_link
from paceline.mqtt.settings import BrokerSettings

__all__ = ["BrokerSettings", "ControlLink", "Statistics", "Will", "control_link"]
