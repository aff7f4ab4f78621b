"""Recipes that ship, for `widehrnet train NAME`."""
