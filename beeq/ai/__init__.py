"""Scripts, descriptions, pictures and videos from an OpenAI-compatible HTTP API; knows no queue."""
