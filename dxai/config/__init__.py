"""Settings: their schema and the profiles."""
