"""What a run says of itself: log, progress, statistics, metrics and summary."""
