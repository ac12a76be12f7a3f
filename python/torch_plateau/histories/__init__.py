"""Recorded histories: read, replayed, swept and judged."""
