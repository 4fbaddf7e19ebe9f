"""What a run reports about itself: log, progress, statistics and summary."""
