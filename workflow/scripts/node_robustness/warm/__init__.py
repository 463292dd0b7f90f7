"""Jobs that start at once: scripts run in forks of a server that has imported their libraries."""
