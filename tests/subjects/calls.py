"""The calls of one thing, as subjects."""


def calls_of(name, build, calls, observe, go_on):
    return {f"{name}, {call}": (build, act, observe, go_on) for call, act in calls.items()}
