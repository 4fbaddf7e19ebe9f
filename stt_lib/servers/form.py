"""The parts of a multipart request, and where it goes."""

from stt_lib.servers.transport import Part

Form = list[Part]


def field(name: str, value: str) -> Part:
    """A plain field: a part without a file name."""
    return name, (None, value)


def given(**values: str | None) -> dict[str, str]:
    """Those that have a value: for the others the server's own defaults hold."""
    return {name: value for name, value in values.items() if value}


def fields(**values: str) -> Form:
    """Plain fields."""
    return [field(name, value) for name, value in values.items()]


def endpoint(url: str, path: str) -> str:
    """The address to post to, also when the person gave it whole, or up to somewhere in it.

    With `path` "/v1/audio/transcriptions" a URL that ends in "/v1" is as good as one without.
    """
    steps = path.split("/")
    for count in range(len(steps), 1, -1):
        head = "/".join(steps[:count])
        if url.endswith(head):
            return url + path.removeprefix(head)
    return url + path
