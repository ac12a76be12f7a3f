"""What is called with a fault at every point: how it is built, called, looked at, and goes on.

A call that makes something (``new ...``) must leave what it was given as it was, and is then made
again; any other is all done, or not begun.
"""

from subjects import composed, constructors, histories, lanes, schedulers, stacks

SUBJECTS = {
    **lanes.SUBJECTS,
    **schedulers.SUBJECTS,
    **composed.SUBJECTS,
    **stacks.SUBJECTS,
    **constructors.SUBJECTS,
    **histories.SUBJECTS,
}
