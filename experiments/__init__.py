"""Configuration, declared tables, planning and running: the only package that knows all the others."""
