"""Explains why a job is where it is: ``facts`` reads Redis, ``reasons`` draws the conclusions."""
