"""A module for each screen: reads the data for its template. Each takes a ``ScreenRequest``."""
