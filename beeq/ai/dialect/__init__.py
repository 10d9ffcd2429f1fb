"""Fields that some providers and models refuse: read from their refusals, and left out of requests."""
