"""The sections of a table's page. Each is a function of a filled table and gives lines of Markdown, or none."""
