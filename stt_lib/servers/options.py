"""What is asked of an STT server besides the audio."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asked for; what a protocol has no word for does not get through.

    `model` only when somebody named one: a server that reports another is refused.
    """

    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
