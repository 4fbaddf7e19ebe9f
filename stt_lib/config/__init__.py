"""Settings: declared, read from flags, environment and files, and checked."""
