"""What reads and never writes: `status`, `doctor` and the metrics of a run."""
