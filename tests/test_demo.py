"""The demo, as a newcomer sees it: real MongoDB, real model, the sample recordings."""

import re
import shlex
from pathlib import Path

import jiwer
import pytest

from stt_lib.domain.text import normal_form
from stt_lib.local.ingest import SAMPLES
from tests.support.world import World

MOST_WRONG_WORDS = 0.05
"""The model does better (see the samples' README); another build of it may do a little worse."""


def spoken(sample: Path) -> str:
    """The text of a sample without its marks for pauses and voices."""
    text = sample.with_suffix(".txt").read_text()
    return normal_form(re.sub(r"(?m)^\[pause \d+\]$|^[AB]: ", " ", text))


@pytest.mark.timeout(240)
def test_the_demo_shows_the_samples_in_order_and_well_recognised(world: World) -> None:
    done = world.run("demo", seconds=180)
    assert done.returncode == 0, done.stderr
    assert "Finished: 7 sequences" in done.stderr
    heading = r"\n\d{4}-\d\d-\d\d · \w+\.opus · recording \w+ · .+\n"
    recordings = re.split(heading, done.stdout)[1:]
    assert len(recordings) == len(SAMPLES)
    for sample, shown in zip(SAMPLES, recordings, strict=True):
        times = re.findall(r"^  (\d\d:\d\d:\d\d)  ", shown, re.MULTILINE)
        assert times == sorted(times)
        heard = normal_form(re.sub(r"(?m)^  \d\d:\d\d:\d\d  ", " ", shown))
        # Cut at 30 chunks, a word at the seam may still be lost or doubled.
        assert jiwer.wer(spoken(sample), heard) < MOST_WRONG_WORDS, sample

    [hint] = re.findall(r"To read the newest transcript: python stt\.py (.+)", done.stderr)
    exported = world.run(*shlex.split(hint))
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.strip() in done.stdout

    metrics = world.folder / "metrics.prom"
    env = {"STT_RETRANSCRIBE": "all", "STT_METRICS_FILE": str(metrics)}  # for other runs
    again = world.run("demo", seconds=120, env=env)
    assert again.returncode == 0
    assert "Nothing to do: the samples are already transcribed." in again.stdout
    assert "Finished: 0 sequences" in again.stderr
    assert recordings == re.split(heading, again.stdout)[1:]
    assert not metrics.exists()
