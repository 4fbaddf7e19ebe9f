"""A replica set on this machine whose primary can be killed and made to step down."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
from pymongo.errors import PyMongoError

from stt_lib.local.mongod import Mongod
from tests.support.crew import eventually

MEMBERS = 3
NAME = "soak"
SETTINGS = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 300}
"""A new primary within seconds: the tests are to see many of them."""

SETTLE_SECONDS = 60.0
PRIMARY, SECONDARY = 1, 2


class ReplicaSet:
    """Three mongods; the set is healthy when all are back and one of them is primary."""

    def __init__(self, folder: Path, members: int = MEMBERS) -> None:
        arguments = ("--replSet", NAME, "--oplogSize", "64")
        self._members = [
            Mongod(folder / f"member{number}", extra_args=arguments) for number in range(members)
        ]
        self._stack = ExitStack()
        self.kills = 0
        self.stepdowns = 0

    def __enter__(self) -> Self:
        for member in self._members:
            member.start()
            self._stack.callback(member.kill)  # asked to stop, a primary takes its time
        self._initiate()
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.uri)
        self._stack.callback(self._client.close)
        self.settle()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def uri(self) -> str:
        return f"mongodb://{','.join(self._hosts)}/?replicaSet={NAME}"

    @property
    def secondary(self) -> str:
        """The connection string of one secondary."""
        return next(m.uri for m in self._members if not m.uri.endswith(self._primary()))

    @property
    def _hosts(self) -> Sequence[str]:
        return [f"127.0.0.1:{member.port}" for member in self._members]

    def _initiate(self) -> None:
        members = [{"_id": number, "host": host} for number, host in enumerate(self._hosts)]
        config = {"_id": NAME, "members": members, "settings": SETTINGS}
        with pymongo.MongoClient[dict[str, Any]](
            self._members[0].uri, directConnection=True
        ) as client:
            client.admin.command("replSetInitiate", config)

    def settle(self) -> None:
        """Wait for a primary and two secondaries that have caught up with it."""
        eventually(self._is_healthy, SETTLE_SECONDS, "a healthy replica set")

    def _is_healthy(self) -> bool:
        try:
            members = self._client.admin.command("replSetGetStatus")["members"]
        except PyMongoError:
            return False
        states = sorted(member["state"] for member in members)
        return states == [PRIMARY] + [SECONDARY] * (len(self._members) - 1)

    def kill_primary(self) -> None:
        """SIGKILL, and start it again once the others have done without it."""
        host = self._primary()
        victim = self._members[self._hosts.index(host)]
        victim.kill()
        self.kills += 1
        eventually(lambda: self._primary() != host, SETTLE_SECONDS, "another primary")
        victim.start()
        self.settle()

    def step_down(self) -> None:
        """Make the primary give up its place to another one."""
        host = self._primary()
        eventually(self._did_step_down, SETTLE_SECONDS, "a stepdown")
        self.stepdowns += 1
        eventually(lambda: self._primary() != host, SETTLE_SECONDS, "another primary")
        self.settle()

    def _did_step_down(self) -> bool:
        """Refused while no secondary has caught up."""
        try:
            self._client.admin.command(
                "replSetStepDown", 10, secondaryCatchUpPeriodSecs=5, force=False
            )
        except PyMongoError:
            return False
        return True

    def _primary(self) -> str:
        """Its host and port; empty while there is none."""
        try:
            hello = self._client.admin.command("hello")
        except PyMongoError:
            return ""
        return str(hello.get("primary", "")) if hello.get("isWritablePrimary") else ""
