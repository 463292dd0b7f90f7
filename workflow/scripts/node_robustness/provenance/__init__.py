"""What made a run, and what it cost."""
