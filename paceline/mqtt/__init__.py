"""The control plane's link: typed topics over an MQTT broker, never waited for by the data plane."""
