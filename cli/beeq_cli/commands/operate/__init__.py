"""The commands that show jobs and act on them: by their ids, or on all of a queue that match filters."""
