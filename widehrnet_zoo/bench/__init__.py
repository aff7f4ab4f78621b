"""Timing of networks side by side."""
