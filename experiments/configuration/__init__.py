"""Settings: their types, their values at each scale, how text becomes one, and what the names in a table mean."""
