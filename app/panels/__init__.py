"""Pieces of the dashboard's pages. Logic that needs no page lives in probes/."""
