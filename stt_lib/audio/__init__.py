"""Audio files: what their headers say, how they decode, how they are joined."""
