"""Profiles that come with opsmesh, to be enabled one by one."""
