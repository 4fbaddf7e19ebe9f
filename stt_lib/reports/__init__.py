"""Read-only verdicts for people: `status` of the backlog, `doctor` of what a run needs."""
