"""Tables: from the files of a run to rows of numbers."""
