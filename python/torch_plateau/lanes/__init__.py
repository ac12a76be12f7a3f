"""Lanes: the state machine, its settings and its state."""
