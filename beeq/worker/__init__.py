"""The consuming side of a queue: takes jobs, runs them, and records how they end."""
