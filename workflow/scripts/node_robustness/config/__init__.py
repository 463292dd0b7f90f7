"""The typed configuration: every key, its default, its range, and what it means."""
