"""From tables and settings to the runs they need: specs, their names, and proof that rows differ as declared."""
