"""Servers and links: the inventory, the agent that measures them, the monitor."""
