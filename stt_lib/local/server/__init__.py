"""The embedded Whisper server."""
