"""Cases: tests of profiles, as YAML files."""
