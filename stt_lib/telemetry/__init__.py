"""What a run reports about itself: log, progress, statistics, metrics and summary."""
