"""The embedded stack: MongoDB, a Whisper server, ingest and sample recordings, on this machine."""
