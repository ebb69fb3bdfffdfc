"""Watches the fleet and advises edges; speaks MQTT."""
