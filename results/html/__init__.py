"""The report as one HTML file: sections as plain data, drawn by the templates beside this file."""
