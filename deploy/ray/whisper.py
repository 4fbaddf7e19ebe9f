"""The Whisper server as an application of Ray Serve; README.md beside this file has the commands.

Workers see one URL. Behind it, Serve starts and stops replicas by the number of requests in
progress, on CPUs, GPUs or fractions of either, and drains a replica before it stops it.
"""

import os
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from starlette.types import ASGIApp

from stt_lib.local.batching import MOST
from stt_lib.local.server.app import create_app
from stt_lib.local.server.service import Service
from stt_lib.local.transcriber import BUNDLED_MODEL, Transcriber

LONGEST_REQUEST_SECONDS = 95.0
"""Seconds. Deadline of a request with 30 chunks, which a replica may finish before it stops."""


class Options(BaseModel, extra="forbid"):
    """What `serve run … NAME=VALUE` and the `args` of a config file may set."""

    model: str = BUNDLED_MODEL
    parallel: int | None = None
    """Requests that one replica computes at a time: 1 on a CPU, on a GPU as many as `batch`."""

    batch: int | None = None
    """Windows of speech that a call of the model decodes at most: 4 on a CPU, 16 on a GPU."""

    cpus: float = 1.0
    gpus: float = 0.0
    """Share of a GPU for each replica: 0.25 puts four on one."""

    min_replicas: int = 1
    max_replicas: int = 8
    max_queued: int = 256
    """Requests that may wait for a replica; further ones are answered 503, and workers back off."""

    @property
    def windows(self) -> int:
        """Windows of speech per call of the model, at most."""
        return self.batch or MOST["cuda" if self.gpus else "cpu"]

    @property
    def requests(self) -> int:
        """Requests that one replica computes at a time."""
        return self.parallel or (self.windows if self.gpus else 1)


@serve.ingress()
class Whisper:
    """One replica, which takes requests as soon as its model is loaded."""

    def __init__(self, model: str, parallel: int, batch: int) -> None:
        self._service = Service(
            Transcriber(model, parallel=parallel, batch=batch),
            api_key=os.environ.get("STT_API_KEY") or None,
            queue=parallel,
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return create_app(self._service)


def app(options: Options) -> Application:
    """Return the application that `serve run deploy.ray.whisper:app` starts."""
    return replicated(Whisper, options).bind(options.model, options.requests, options.windows)


def replicated(replica: type, options: Options) -> Any:
    """Return a deployment whose replicas follow the number of requests in progress."""
    return serve.deployment(
        replica,
        name="Whisper",
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        # One more than a replica computes, so that the next request is already decoded.
        max_ongoing_requests=options.requests + 1,
        max_queued_requests=options.max_queued,
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=options.requests,
            upscale_delay_s=5,
            downscale_delay_s=300,
        ),
        graceful_shutdown_timeout_s=LONGEST_REQUEST_SECONDS,
        health_check_period_s=5,
        health_check_timeout_s=20,
    )
