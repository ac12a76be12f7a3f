"""Lanes bound to optimizers and models: schedulers, rates, best parameters."""
