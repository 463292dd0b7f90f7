"""What surrounds the computation of a job: its log, its device, and its failures."""
