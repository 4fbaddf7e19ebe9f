"""Read-only verdicts for people: the state of the backlog and of what a run needs."""
