"""stt: a batch worker that turns recorded speech chunks in MongoDB into transcripts."""

__version__ = "0.1.0"
