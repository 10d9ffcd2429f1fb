"""A module for each screen: what it asks, and what its template gets. Each takes a ``ScreenRequest``."""
