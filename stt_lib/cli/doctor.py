"""`doctor`: does all that a run needs work, and if not, what is to be done?"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import click

from stt_lib.cli import exit_codes
from stt_lib.cli.options import settings_options
from stt_lib.cli.rendering import counted
from stt_lib.cli.session import reachable
from stt_lib.config.settings import load
from stt_lib.errors import ConfigurationError, Unavailable
from stt_lib.reports.doctor import Finding, State, examine

_MARKS: Final = {State.OK: ("✓", "green"), State.NOTE: ("!", "yellow"), State.PROBLEM: ("✗", "red")}


@click.command(short_help="Check everything that a run needs, and say what to do.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@settings_options(
    "server_url", "protocol", "model", "timeout_base", "ca_file", "log_file", "local", "data_dir"
)
def doctor(as_json: bool, **flags: Any) -> int:
    """Check everything that a run needs: settings, MongoDB, STT servers, log and disk.

    Each STT server transcribes a second of speech. Nothing is changed anywhere. Exit code 1 if
    there is a problem.
    """
    found: list[Finding] = []
    for finding in _findings(flags):
        found.append(finding)
        if not as_json:
            click.echo("\n".join(_lines(finding)))
    problems = sum(finding.state is State.PROBLEM for finding in found)
    if as_json:
        report = {"ok": not problems, "findings": [asdict(finding) for finding in found]}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(f"\n{counted(problems, 'problem')}." if problems else "\nAll is well.")
    return exit_codes.FAILURES if problems else exit_codes.OK


def _findings(flags: dict[str, Any]) -> Iterator[Finding]:
    try:
        settings = load(flags)
    except ConfigurationError as error:
        advice = "correct it, then run doctor again for the rest"
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
