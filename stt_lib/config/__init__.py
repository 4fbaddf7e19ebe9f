"""Settings: declared once, read from flags, environment variables and files, and checked."""
