"""What every protocol needs for a request: the options, the address, and the way there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stt_lib.servers.transport import Channel, Part, Reply, WhenSent, do_nothing


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of an STT server besides the audio; a protocol sends what it has a field for.

    `model` only if the user named one: an answer that reports another one is refused.
    """

    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its audio: where it goes, by which channel, and how long it may take.

    `server` is the address without secrets; `seconds` and `when_sent` are those of `Channel.post`.
    """

    channel: Channel
    url: str
    options: Options
    server: str
    seconds: float
    when_sent: WhenSent = do_nothing

    def post(
        self, path: str, parts: list[Part], headers: Mapping[str, str], query: str = ""
    ) -> Reply:
        """Send the parts to a path below the server's address.

        Raises:
            AttemptError: whatever went wrong, by what the caller does next.
        """
        return self.channel.post(
            endpoint(self.url, path) + (f"?{query}" if query else ""),
            parts,
            {"Accept": "application/json", **headers},
            server=self.server,
            seconds=self.seconds,
            when_sent=self.when_sent,
        )


def endpoint(url: str, path: str) -> str:
    """The address of a path, also where the URL contains the beginning of it, or all.

    With `path` "/v1/audio/transcriptions" a URL that ends in "/v1" is as good as one without.
    """
    steps = path.split("/")
    for count in range(len(steps), 1, -1):
        head = "/".join(steps[:count])
        if url.endswith(head):
            return url + path.removeprefix(head)
    return url + path


def given(**values: str | None) -> dict[str, str]:
    """The values that are set: the server's defaults apply to the others."""
    return {name: value for name, value in values.items() if value}


def fields(values: Mapping[str, str]) -> list[Part]:
    """Plain form fields."""
    return [(name, (None, value)) for name, value in values.items()]
