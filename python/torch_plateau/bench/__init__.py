"""Our step beside its rivals, held equal and timed: ``torch-plateau bench`` and benchmarks/.

Nothing of the command line is needed here. The files name the package from the top, so that
benchmarks/versions.py can put them beside an older version of it.
"""
