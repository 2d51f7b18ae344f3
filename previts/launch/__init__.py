"""Launchers, which start a verb as several processes on this machine (`local`) or on a cluster (`launcher`)."""
