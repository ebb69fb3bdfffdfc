"""The control plane as values: what is said over MQTT, under which topic, and how a draft length is chosen. Pure."""
