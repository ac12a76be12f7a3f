"""Whole lives of lanes, at random, against oracles: ``python -m conformance`` in tests/.

plans.py draws a life by its number; check.py lives it twice; shrink.py makes one that differs
small; __main__.py does so for as many as are asked, in processes, and keeps the record.
"""
