"""Whether what a fault ended is whole: as before the call or as after it, and goes on so."""

from injected import plain
from subjects import SUBJECTS

# Between the decision and the write of rates, or while groups are taken over, an object may be
# left; the next step then makes it good.
HEALS = ("batched float", "groups come", "composed")
# An optimizer's step, which is not ours, is half taken if it is interrupted.
FOREIGN = ("stack lr, step", "stack adamw, step")


def ways_on(name):
    """What is seen of the subject before and after its call, and how it goes on from there."""
    build, act, observe, go_on = SUBJECTS[name]
    found = {}
    for calls in (0,) if name.startswith("new ") else (0, 1):
        thing = build()
        for _ in range(calls):
            act(thing)
        seen = repr(plain(observe(thing)))
        found[seen] = plain(go_on(thing))
    return found


def is_whole(name, ways, thing):
    """Whether a subject is as it was in one of the ways."""
    *_, observe, go_on = SUBJECTS[name]
    seen = repr(plain(observe(thing)))
    try:
        after = plain(go_on(thing))
    except Exception:  # it refuses to go on
        return False
    if seen in ways:
        return after == ways[seen]
    return after in ways.values() and any(part in name for part in HEALS)
