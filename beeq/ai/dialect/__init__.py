"""What single providers and models do not take: read from their refusals, and left out of requests."""
