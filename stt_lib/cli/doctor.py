"""`doctor`: checks everything that a run needs and suggests what to do."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import click

from stt_lib.cli import exit_codes
from stt_lib.cli.options import JSON, settings_options
from stt_lib.cli.rendering import print_json
from stt_lib.cli.session import reachable
from stt_lib.config.loader import load
from stt_lib.domain.units import counted
from stt_lib.errors import ConfigurationError, Unavailable
from stt_lib.reports.doctor import Finding, State, examine

_MARKS: Final = {
    State.OK: ("✓", "green"),
    State.WARNING: ("!", "yellow"),
    State.PROBLEM: ("✗", "red"),
}


@click.command()
@JSON
@settings_options("server_url", "protocol", "model", "language", "prompt", "timeout_base")
@settings_options("ca_file", "log_file", "local", "data_dir")
def doctor(as_json: bool, **flags: Any) -> int:
    """Check everything that a run needs: settings, MongoDB, STT servers, log and disk.

    Each STT server transcribes a short clip of speech. Nothing is changed. The exit code is 1 if
    there is a problem.
    """
    found: list[Finding] = []
    for finding in _findings(flags):
        found.append(finding)
        if not as_json:
            click.echo("\n".join(_lines(finding)))
    problems = sum(finding.state is State.PROBLEM for finding in found)
    warnings = sum(finding.state is State.WARNING for finding in found)
    if as_json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in found]})
    else:
        click.echo(f"\n{_verdict(problems, warnings)}.")
    return exit_codes.FAILURES if problems else exit_codes.OK


def _verdict(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return "Everything works"
    found = counted(problems, "problem") if problems else "No problems"
    return f"{found}, {counted(warnings, 'warning')}" if warnings else found


def _findings(flags: dict[str, Any]) -> Iterator[Finding]:
    try:
        settings = load(flags)
    except ConfigurationError as error:
        advice = "correct it, then run doctor again for the other checks"
        yield Finding("settings", State.PROBLEM, str(error), advice)
        return
    yield Finding("settings", State.OK, f"valid; {counted(len(settings.server_url), 'STT server')}")
    try:
        with reachable(settings, whisper=True) as places:
            yield from examine(places)
    except Unavailable as error:
        yield Finding("embedded", State.PROBLEM, str(error))


def _lines(finding: Finding) -> Iterator[str]:
    mark, colour = _MARKS[finding.state]
    yield f"{click.style(mark, fg=colour)} {finding.check:<9} {finding.text}"
    if finding.advice:
        yield f"{'':<11} → {finding.advice}"
