"""faster-whisper called directly: the sample recordings in one process, no server, no database."""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby

import numpy as np

from stt_lib.audio.decoding import Samples, decode
from stt_lib.domain.models import NewChunk
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.local.ingest import read_recording, samples
from stt_lib.local.transcriber import Transcriber

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def sequences() -> list[list[NewChunk]]:
    """The speech of the samples in the pieces that the worker posts, newest first."""
    found: list[list[NewChunk]] = []
    for path, start in samples(START):
        speech = [chunk for chunk in read_recording(path, start) if chunk.has_speech]
        for _, run in groupby(enumerate(speech), key=lambda pair: pair[1].index - pair[0]):
            chunks = [chunk for _, chunk in run]
            for end in range(len(chunks), 0, -MAX_CHUNKS):
                found.append(chunks[max(0, end - MAX_CHUNKS) : end])
    return sorted(found, key=lambda chunks: chunks[-1].start, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=int, default=2)
    parallel = parser.parse_args().parallel
    work = sequences()
    transcriber = Transcriber(parallel=parallel)

    def hear(chunks: list[NewChunk]) -> float:
        sound: Samples = np.concatenate([decode(chunk.data, "chunk.opus") for chunk in chunks])
        transcriber.transcribe(sound, lambda: False)
        return sound.size / 16_000

    began, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(parallel) as pool:
        seconds = sum(pool.map(hear, work))
    took = {"wall": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({**took, "audio_seconds": seconds, "sequences": len(work)}))


if __name__ == "__main__":
    main()
